"""A checkpoint's files from a hub on the loopback: once, whole, and what goes wrong is overcome or said in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hub_repositories
import pytest
import stand_in_hub
from loopback import refusing_address
from processes import LONGEST, until
from stand_in_hub import StandInHub

pytestmark = pytest.mark.system

NAME = hub_repositories.CHECKPOINT
SHARD = f"{NAME}/model-00002-of-00003.safetensors"
SCRIPT = """
import sys
sys.excepthook = lambda kind, error, trace: print(kind.__name__ + ":", *str(error).split(), file=sys.stderr)
from lmms_fixattn.data import hub_files
if "sleepless" in sys.argv:
    import time
    time.sleep = lambda seconds: sys.exit("an absent hub is asked again and again")
folder = hub_files.configuration(sys.argv[1], sys.argv[2])
if "free" in sys.argv:
    import shutil, collections
    shutil.disk_usage = lambda path: collections.namedtuple("usage", "free")(1_000_000)
if "limit" in sys.argv:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
hub_files.check_disk_space(sys.argv[1], folder.name)
print(folder, flush=True)
hub_files.download_weights(sys.argv[1], folder.name)
print("whole")
"""


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    with StandInHub(hub_repositories.checkpoint()) as hub:
        yield hub


def environment(home: Path, address: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    patience = dict.fromkeys(("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"), str(LONGEST))
    return {**kept, **patience, "HOME": str(home), "HF_ENDPOINT": address, **more}


def download(home: Path, address: str, *how: str, name: str = NAME, revision: str = "main") -> tuple[str, str]:
    """Download in a process of its own; return the folder, "" where none came, and the last line of its error."""
    command = [sys.executable, "-c", SCRIPT, name, revision, *how]
    done = subprocess.run(
        command, env=environment(home, address), capture_output=True, text=True, timeout=LONGEST, check=False
    )
    folder, *rest = done.stdout.splitlines() or [""]
    assert (done.returncode == 0) == (rest == ["whole"])
    return folder, (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""


def is_whole(folder: str) -> bool:
    files = hub_repositories.checkpoint().files
    wanted = {path: content for path, content in files.items() if path != "README.md"}
    found = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return found == wanted


def test_all_files_come_once_and_then_from_the_cache_without_the_hub(hub: StandInHub, tmp_path: Path) -> None:
    folder, error = download(tmp_path, hub.address)
    assert error == ""
    assert Path(folder).name == hub_repositories.checkpoint().commit
    assert is_whole(folder)
    assert set(hub.asked.values()) == {1}
    assert hub.tokens == set()
    again = download(tmp_path, hub.address)
    assert set(hub.asked.values()) == {1}
    with refusing_address() as absent:
        assert download(tmp_path, absent, "sleepless") == again == (folder, "")


@pytest.mark.parametrize(
    "fault",
    [
        stand_in_hub.status(429, Retry_After="1"),
        stand_in_hub.status(503, Retry_After="1"),
        stand_in_hub.truncated,
        stand_in_hub.in_pieces,
        stand_in_hub.moved,
    ],
    ids=["429", "503", "truncated", "slow", "redirected"],
)
def test_a_download_survives_one_fault_of_the_hub(fault: stand_in_hub.Fault, hub: StandInHub, tmp_path: Path) -> None:
    hub.faults[SHARD].append(fault)
    folder, error = download(tmp_path, hub.address)
    assert error == ""
    assert is_whole(folder)
    assert not hub.faults[SHARD]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (stand_in_hub.status(404), "HfHubHTTPError: Client error '404 Not Found' for url"),
        (stand_in_hub.damaged, "ValueError: model-00002-of-00003.safetensors came damaged and was deleted; run again"),
    ],
    ids=["404", "damaged"],
)
def test_faults_that_stop_a_download_are_said_and_a_further_run_completes_it(
    fault: stand_in_hub.Fault, said: str, hub: StandInHub, tmp_path: Path
) -> None:
    hub.faults[SHARD].append(fault)
    folder, error = download(tmp_path, hub.address)
    assert said in error
    assert not (Path(folder) / Path(SHARD).name).exists()
    assert download(tmp_path, hub.address) == (folder, "")
    assert is_whole(folder)
    assert hub.asked[SHARD] == 2


def test_a_download_that_was_killed_goes_on_and_no_part_counts_as_whole(hub: StandInHub, tmp_path: Path) -> None:
    hub.faults[SHARD].append(stand_in_hub.halfway)
    command = [sys.executable, "-c", SCRIPT, NAME, "main"]
    process = subprocess.Popen(
        command, env=environment(tmp_path, hub.address), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    folder = process.stdout.readline().strip()
    until(lambda: hub.asked[SHARD], process)
    process.kill()
    process.communicate()
    assert not (Path(folder) / Path(SHARD).name).exists()
    assert download(tmp_path, hub.address) == (folder, "")
    assert is_whole(folder)


def test_weights_without_room_are_refused_before_the_download(hub: StandInHub, tmp_path: Path) -> None:
    folder, error = download(tmp_path, hub.address, "free")
    assert folder == ""
    assert "are 0.00 GB to download" in error
    assert "set HF_HOME to a folder on a larger disk" in error
    assert hub.asked[SHARD] == 0


def test_a_disk_that_fills_up_leaves_no_part_that_counts_as_whole(hub: StandInHub, tmp_path: Path) -> None:
    folder, error = download(tmp_path, hub.address, "limit")
    assert error.startswith("OSError: [Errno")
    assert not (Path(folder) / Path(SHARD).name).exists()
    assert download(tmp_path, hub.address) == (folder, "")
    assert is_whole(folder)


def test_what_the_hub_does_not_have_is_said(hub: StandInHub, tmp_path: Path) -> None:
    _, error = download(tmp_path, hub.address, name="nobody/nothing")
    assert "nobody/nothing" in error
    _, error = download(tmp_path, hub.address, revision="v9")
    assert "v9" in error


def test_the_checkpoint_loads_to_the_weights_and_prompts_of_the_demo(hub: StandInHub, tmp_path: Path) -> None:
    code = """
import torch
from lmms_fixattn.models.checkpoint import Checkpoint
found = [Checkpoint.find(place, "main") for place in ("llava-hf/llava-1.5-7b-hf", "demo")]
models = [each.load_model(torch.float32, torch.device("cpu"), "", None) for each in found]
weights = [dict(model.named_parameters()) for model in models]
assert weights[0].keys() == weights[1].keys()
assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
        {"role": "user", "content": [{"type": "text", "text": "Is it?"}]}]
processors = [each.load_processor() for each in found]
prompts = [each.apply_chat_template(chat, add_generation_prompt=True) for each in processors]
assert prompts[0] == prompts[1]
from PIL import Image
image = Image.effect_noise((67, 41), 50).convert("RGB")
logits = []
for model, processor in zip(models, processors):
    inputs = processor(images=image, text=prompts[0], return_tensors="pt")
    with torch.inference_mode():
        logits.append(model(**inputs).logits)
assert torch.equal(*logits)
print(found[0].commit, found[0].fingerprint)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path, hub.address),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    commit = hub_repositories.checkpoint().commit
    assert done.stdout.split() == [commit, f"{NAME}@{commit}"]
