"""`lmms-fixattn data`: what is needed, what is there, and fetching it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from coco_folders import write_coco
from image_server import ImageServer, jpeg, status

from lmms_fixattn import cli
from lmms_fixattn.data import hub, hub_files, image_host, image_lists
from lmms_fixattn.harness.tasks import pope_documents

pytestmark = pytest.mark.system

IDS = image_lists.load("paper_2501_12206").ids
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
FILES = {
    "config.json": "{}",
    "tokenizer.json": "{}",
    "processor_config.json": "{}",
    "model.safetensors.index.json": json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}}),
    SHARDS[0]: "x" * 3000,
    SHARDS[1]: "y" * 5000,
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("LMMS_FIXATTN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")  # what the command sets is taken back after the test
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(image_host, "_BACKOFF", 0.01)
    pope_documents._hub_error.cache_clear()
    yield
    pope_documents._hub_error.cache_clear()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageServer]:
    with ImageServer() as serving:
        monkeypatch.setenv("LMMS_FIXATTN_IMAGE_HOST", serving.address)
        monkeypatch.setenv("LMMS_FIXATTN_CACHE", str(tmp_path / "cache"))
        yield serving


@pytest.fixture
def popes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Rows of the hub's POPE, to be filled in; none is as much as no hub."""
    import datasets

    rows: list[dict[str, Any]] = []

    def load_dataset(path: str, name: str | None = None, split: str = "", cache_dir: str | None = None) -> Any:
        if not rows:
            raise ConnectionError(f"Couldn't reach '{path}' on the Hub")
        assert (path, name, split) == (hub.POPE, "default", "test")
        if not (tmp_path / "pope.parquet").is_file():
            datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "pope.parquet"))
        return datasets.Dataset.from_parquet(str(tmp_path / "pope.parquet"), cache_dir=str(tmp_path / "datasets"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return rows


def question(number: int, kind: str) -> dict[str, Any]:
    return {
        "question_id": str(number),
        "question": "Is there a dog in the image?",
        "answer": "no",
        "image_source": f"COCO_val2014_{number:012d}",
        "category": kind,
        "image": {"bytes": jpeg(number), "path": None},
    }


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a checkpoint in the hub's cache, to be filled by the test."""
    folder = tmp_path / "snapshot"

    def snapshot_download(
        repo_id: str, *, revision: str, allow_patterns: list[str], dry_run: bool = False, tqdm_class: Any = None
    ) -> str | list[Any]:
        assert repo_id == "llava-hf/llava-1.5-7b-hf"
        assert revision in ("main", folder.name)
        if not folder.is_dir():
            raise FileNotFoundError("no snapshot")
        shard = folder / SHARDS[0]
        coming = SimpleNamespace(
            file_size=3000, will_download=not shard.exists(), filename=shard.name, local_path=str(shard)
        )
        return [coming] if dry_run else str(folder)

    monkeypatch.setattr(hub_files, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub_files, "HF_HUB_CACHE", str(tmp_path))
    return folder


def fill(folder: Path, without: str = "") -> None:
    folder.mkdir(exist_ok=True)
    for name, text in FILES.items():
        if name != without:
            (folder / name).write_text(text)


def run(*arguments: str) -> int:
    return cli.main(["data", *arguments])


def test_it_fetches_what_is_lacking_and_then_all_is_there(
    server: ImageServer,
    popes: list[dict[str, Any]],
    snapshot: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("chair_coco", "pope") == 1
    out, err = capsys.readouterr()
    assert server.asked == {}
    folder = tmp_path / "cache" / "val2014"
    assert f"chair_coco: LACKING 500 of 500 images of COCO, about 80 MB, are not in {folder}\n" in out
    assert f"pope: LACKING hub data set {hub.POPE} could not be loaded" in out
    assert "llava-hf/llava-1.5-7b-hf: LACKING checkpoint" in out
    assert err.strip().endswith("not all is there; lmms-fixattn data --fetch fetches what is lacking")

    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    popes += [question(n, kind) for kind in ("random", "popular", "adversarial") for n in range(6)]
    fill(snapshot)
    assert run("chair_coco", "pope", "pope_coco", "--fetch") == 0
    capsys.readouterr()
    assert dict(server.asked) == dict.fromkeys(IDS, 1)

    assert run("chair_coco", "pope", "pope_coco", "--format", "json") == 0
    needs = {need["of"]: need for need in json.loads(capsys.readouterr().out)}
    assert [need["lacking"] for need in needs.values()] == [""] * 4
    chair = needs["chair_coco"]
    assert chair["what"] == f"500 documents: images paper_2501_12206, image cache {tmp_path / 'cache'}"
    assert (chair["where"], chair["size"]) == (str(folder), sum(len(jpeg(image_id)) for image_id in IDS))
    assert needs["pope"]["what"] == f"18 documents: hub {hub.POPE}"
    assert needs["pope_coco"]["what"].startswith("18 documents: images as in the questions, hub")
    assert needs["pope_coco"]["where"] == needs["pope"]["where"]
    assert needs["pope_coco"]["where"].startswith(str(tmp_path / "datasets"))
    model = needs["llava-hf/llava-1.5-7b-hf"]
    assert model["size"] == sum(map(len, FILES.values()))
    assert dict(server.asked) == dict.fromkeys(IDS, 1)


def test_what_could_not_be_fetched_is_said_and_the_rest_is_fetched(
    server: ImageServer,
    popes: list[dict[str, Any]],
    snapshot: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.faults[IDS[4]] = deque([status(404)])
    popes.append(question(3, "random"))
    fill(snapshot, without=SHARDS[1])
    assert run("chair_coco", "pope", "--fetch") == 1
    out, err = capsys.readouterr()
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert f"1 of 500 images of COCO could not be fetched, such as image {IDS[4]}: " in lines["chair_coco"]
    assert "a further run asks for the lacking ones alone" in lines["chair_coco"]
    assert lines["pope"].startswith("1 documents: hub")
    assert f"lacks 1 files in {snapshot}, such as {SHARDS[1]}" in lines["llava-hf/llava-1.5-7b-hf"]
    assert "error: chair_coco, llava-hf/llava-1.5-7b-hf: not all is there" in err
    assert run("chair_coco", "--fetch", "--pretrained", "demo") == 0


@pytest.mark.parametrize("lacking", ["config.json", "tokenizer.json", "processor_config.json", *SHARDS])
def test_a_checkpoint_with_a_file_missing_is_not_there(
    snapshot: Path, lacking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(snapshot, without=lacking)
    assert run("chair_coco") == 1
    assert f"lacks 1 files in {snapshot}, such as {lacking}" in capsys.readouterr().out


def test_a_link_to_a_file_that_was_not_copied_is_no_file(snapshot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(snapshot, without=SHARDS[0])
    (snapshot / SHARDS[0]).symlink_to(snapshot / "blobs" / "123")
    assert run("chair_coco") == 1
    assert f"lacks 1 files in {snapshot}, such as {SHARDS[0]}" in capsys.readouterr().out


def test_a_checkpoint_without_room_is_not_fetched(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: ImageServer
) -> None:
    fill(snapshot, without=SHARDS[0])
    usage = shutil.disk_usage("/")._replace(free=2000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert run("chair_coco", "--fetch") == 1
    out = capsys.readouterr().out
    assert "the weights of llava-hf/llava-1.5-7b-hf are 0.00 GB to download, and" in out
    assert "chair_coco: LACKING 500 images of COCO take about 80 MB" in out


def test_a_coco_folder_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco(tmp_path, {image_id: ["dog"] for image_id in (3, 5)}, {3: ["A dog."]})
    monkeypatch.setenv("LMMS_FIXATTN_COCO", str(tmp_path))
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", "all")
    assert run("chair_coco", "--pretrained", "demo") == 0
    assert (
        f"chair_coco: 2 documents: images all of val2014, folder {tmp_path}; 0 MB in {tmp_path}"
        in capsys.readouterr().out
    )
    (tmp_path / "val2014" / "COCO_val2014_000000000005.png").unlink()
    assert run("chair_coco", "--pretrained", str(tmp_path)) == 1
    assert "LACKING 1 of 2 image files are missing" in capsys.readouterr().out


def test_a_setting_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", "paper_2501_1220")
    assert run("chair_coco", "--pretrained", "demo") == 1
    assert "did you mean 'paper_2501_12206'" in capsys.readouterr().out
    assert run("chair_cocoa") == 1
    assert "did you mean 'chair_coco'" in capsys.readouterr().err


@pytest.mark.system
def test_listing_loads_neither_torch_nor_lmms_eval_and_asks_no_network(tmp_path: Path, server: ImageServer) -> None:
    code = (
        "import sys; from lmms_fixattn import cli; "
        "assert cli.main(['data']) == 1; "
        "heavy = {'torch', 'transformers', 'lmms_eval'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": server.address, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("LACKING") == 4
    assert done.stdout.count("is not in this machine's cache of the hub\n") == 3
    assert server.asked == {}
