"""`lmms-eval --model llava_fixattn --tasks chair_coco,pope`, as a user types it, on a network on the loopback."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import hub_repositories
import image_server
import pytest
import stand_in_hub
from hub_repositories import CHECKPOINT, POPE
from image_server import ImageServer
from processes import LONGEST
from stand_in_hub import StandInHub

from lmms_fixattn.data import image_lists
from lmms_fixattn.scoring import pope

pytestmark = pytest.mark.system
COMMAND = ("lmms-eval", "--model", "llava_fixattn", "--tasks", "chair_coco,pope")
README = Path(__file__).parents[2] / "README.md"
PAPER = image_lists.load("paper_2501_12206").ids


@dataclass
class Machine:
    """A user's machine: an empty home, no login, no COCO folder, no settings, and a network with a hub and images."""

    home: Path
    hub: StandInHub
    images: ImageServer

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment that the tests run in, in the home folder."""
        foreign = ("HF_", "XDG_", "LMMS_", "TRANSFORMERS_", "HUGGING", "RANK", "WORLD_SIZE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        settings = {"HOME": str(self.home), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
        network = {"HF_ENDPOINT": self.hub.address, "LMMS_FIXATTN_IMAGE_HOST": self.images.address}
        found = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
        return subprocess.run(
            found,
            cwd=self.home,
            env={**kept, **settings, **network, **more},
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with StandInHub(hub_repositories.checkpoint(), hub_repositories.pope()) as hub, ImageServer() as images:
        yield Machine(tmp_path, hub, images)


def results(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("*_results.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def samples(folder: Path, task: str) -> list[dict[str, Any]]:
    (path,) = folder.rglob(f"*_samples_{task}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def figures(printed: str) -> dict[tuple[str, str], str]:
    """Return the values of the table by task and figure."""
    rows = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines() if line.startswith("|")]
    return {(row[1], row[4]): row[6] for row in rows if len(row) > 8 and row[2] == "none"}


def late(handler: BaseHTTPRequestHandler, whole: bytes) -> None:
    """Answer with the image, but not at once."""
    time.sleep(2)
    image_server.sent(bytes)(handler, whole)


def test_the_literal_command_ends_with_both_tables_and_again_without_a_network(machine: Machine) -> None:
    # What passes is overcome: on the images, on the weights, on the questions.
    kinds: dict[int, image_server.Fault] = {
        PAPER[0]: image_server.status(429, {"Retry-After": "1"}),
        PAPER[1]: image_server.status(503, {"Retry-After": "1"}),
        PAPER[2]: image_server.truncated,
        PAPER[3]: image_server.status(302, {"Location": f"/moved/val2014/COCO_val2014_{PAPER[3]:012d}.jpg"}),
        PAPER[4]: image_server.sent(lambda whole: whole[:-9] + bytes(9)),
        PAPER[5]: late,
    }
    for image_id, fault in kinds.items():
        machine.images.faults[image_id].append(fault)
    weights = f"{CHECKPOINT}/model-00001-of-00003.safetensors"
    questions = f"{POPE}/data/test-00000-of-00001.parquet"
    machine.hub.faults[weights] += [stand_in_hub.status(429, Retry_After="1"), stand_in_hub.truncated]
    machine.hub.faults[questions].append(stand_in_hub.truncated)

    done = machine.run(*COMMAND, "--limit", "6")
    assert done.returncode == 0, done.stdout + done.stderr
    found = figures(done.stdout)
    assert {task for task, _ in found} == {"chair_coco", "pope"}
    assert ("chair_coco", "chair_s") in found
    assert ("pope", "pope_accuracy") in found
    assert "llava_fixattn: method=fixattn (default; the unmodified model is method=vanilla)" in done.stdout
    assert "\nllava_fixattn (method=fixattn), gen_kwargs" in done.stdout
    assert "of this run, which lmms-fixattn compare needs, will not be saved" in done.stdout
    assert f"data set {POPE} is read without a login, as none is stored" in done.stdout
    assert "pope by the official parser: accuracy " in done.stdout
    assert machine.hub.tokens == set()
    assert set(machine.images.asked) == set(PAPER)
    assert not any(machine.images.faults.values())
    assert not any(machine.hub.faults.values())
    downloads = dict(machine.hub.asked)
    assert (downloads.pop(weights), downloads.pop(questions)) == (3, 2)
    assert set(downloads.values()) == {1}

    machine.hub.__exit__()
    machine.images.__exit__()
    again = machine.run(*COMMAND, "--limit", "6", "--output_path", "out", "--log_samples")
    machine.hub.__enter__()
    machine.images.__enter__()
    assert again.returncode == 0, again.stdout + again.stderr
    assert figures(again.stdout) == found
    assert "will not be saved" not in again.stdout
    content = results(machine.home / "out")
    assert f"{content['results']['chair_coco']['chair_s,none']:.4f}" == found["chair_coco", "chair_s"]
    assert f"{content['results']['pope']['pope_accuracy,none']:.4f}" == found["pope", "pope_accuracy"]
    assert content["lmms_fixattn"]["commit"] == hub_repositories.checkpoint().commit
    assert content["lmms_fixattn"]["method_is_default"] is True
    answers = [row["n"][0] for row in samples(machine.home / "out", "pope")]
    assert content["lmms_fixattn"]["pope"]["pope"]["all"] == pope.figures(answers, "official")
    captions = [row["n"]["caption"] for row in samples(machine.home / "out", "chair_coco")]
    assert len(captions) == len(answers) == 6
    assert all(captions)


def test_two_ranks_download_once_and_find_what_one_finds(machine: Machine) -> None:
    tail = (*COMMAND[1:], "--limit", "6", "--output_path", "out", "--log_samples")
    ranks = ("torchrun", "--standalone", "--nproc_per_node", "2", "-m", "lmms_eval", *tail)
    done = machine.run(*ranks, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(machine.hub.asked.values()) == {1}
    assert set(machine.images.asked) == set(PAPER)
    assert set(machine.images.asked.values()) == {1}
    content = results(machine.home / "out")
    assert content["lmms_fixattn"]["processes"] == 2
    answers = [row["n"][0] for row in samples(machine.home / "out", "pope")]
    assert sorted(row["question_id"] for row in answers) == [1, 2, 3, 4, 5, 6]
    assert content["lmms_fixattn"]["pope"]["pope"]["all"] == pope.figures(answers, "official")
    assert done.stdout.count("captions and answers") == 0


def test_what_stays_wrong_ends_in_one_line_before_the_weights_are_downloaded(machine: Machine) -> None:
    machine.images.faults[PAPER[7]].append(image_server.status(404))
    done = machine.run(*COMMAND, "--limit", "6", "--verbosity", "DEBUG")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert f"1 of 500 images of COCO could not be fetched, such as image {PAPER[7]}" in last
    assert "404" in last
    assert not any(name.endswith(".safetensors") for name in machine.hub.asked)

    machine.hub.repositories.pop(("datasets", POPE))
    done = machine.run(*COMMAND, "--limit", "6", "--verbosity", "DEBUG")
    assert done.returncode != 0
    assert f"DataError: task pope: data set {POPE} could not be loaded" in done.stderr
    assert not any(name.endswith(".safetensors") for name in machine.hub.asked)


def test_the_hubs_own_list_is_scored_with_the_truth_that_it_carries(machine: Machine) -> None:
    with StandInHub(hub_repositories.checkpoint(), hub_repositories.chair()) as hub:
        machine.hub = hub
        options = ("--batch_size", "6", "--output_path", "out", "--log_samples")
        done = machine.run(*COMMAND[:-1], "chair_coco", *options, LMMS_FIXATTN_IMAGES="hub")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not machine.images.asked
    assert hub.tokens == set()
    kept = samples(machine.home / "out", "chair_coco")
    assert len(kept) == 12
    data = results(machine.home / "out")["configs"]["chair_coco"]["process_docs"]
    assert hub_repositories.CHAIR in str(data)


def test_the_quick_start_of_the_readme_runs_line_by_line(machine: Machine) -> None:
    """Run the block between `<!-- quick start -->` and `<!-- end of the quick start -->`, on fewer documents."""
    block = re.search(r"<!-- quick start -->(.*?)<!-- end of the quick start -->", README.read_text(), re.DOTALL)
    assert block, "README.md has no quick start between its two markers"
    lines = [line.strip() for line in block[1].replace("\\\n", "").splitlines() if line.startswith("    ")]
    commands = [shlex.split(line, comments=True) for line in lines if not line.startswith("pip ")]
    assert [command[0] for command in commands].count("lmms-eval") == 2
    printed = []
    for command in commands:
        short = ["--limit", "32"] if command[0] == "lmms-eval" else []
        done = machine.run(*command, *short)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        printed.append(done.stdout)
    assert len(samples(machine.home / "out" / "vanilla", "chair_coco")) == 32
    compared = printed[-1]
    assert "baseline vanilla" in compared
    assert "vanilla ran method=vanilla" in compared
    assert "fixattn ran method=fixattn" in compared
    assert "careful" not in compared
    assert re.search(r"^POPE\b", compared, re.MULTILINE)
    assert "fixattn: CHAIR_s " in compared
