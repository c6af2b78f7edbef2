"""What comes from the Hugging Face hub: two data sets, and checkpoints. Public: no login is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmms_fixattn.data import DataError
from lmms_fixattn.data.coco import HOW_TO_GET_COCO
from lmms_fixattn.scoring.files.entries import read_object

CHAIR = "tsunghanwu/mscoco_chair"
CHAIR_COLUMNS = {"question_id": (int, str), "gt_object": list}  # the COCO image id, the node words of the truth
POPE = "lmms-lab-encoder/POPE"  # the published questions with their images; `category` is the kind
POPE_COLUMNS = {"question_id": (int, str), "question": str, "answer": str, "image_source": str, "category": str}
# What lmms-eval's own task reads as well. "Full" has the same in three splits, and with both in its cache `datasets`
# finds neither by lmms-eval's name for it, which is none, once the hub is out of reach.
POPE_CONFIGURATION = "default"

_PARTS = (
    ("config.json",),
    ("tokenizer.json", "tokenizer.model"),
    ("processor_config.json", "preprocessor_config.json"),
)
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"

_INSTEAD = {
    CHAIR: "leave LMMS_FIXATTN_IMAGES unset for the images of the paper, which are not from the hub",
    POPE: f"set LMMS_FIXATTN_COCO to a COCO folder; {HOW_TO_GET_COCO}",
}


def load(path: str, name: str | None, split: str, columns: Mapping[str, Any]) -> Any:
    """Load one split of a hub data set, images undecoded.

    Raises:
        DataError: the hub is out of reach and the data set is not in its cache, or the columns are not the expected.
    """
    import datasets

    try:
        # lmms-eval's variable for the folder of its own tasks' data, of which POPE is one
        folder = os.environ.get("LMMS_EVAL_DATASETS_CACHE") or None
        dataset = datasets.load_dataset(path, name, split=split, cache_dir=folder)
    except Exception as error:
        raise DataError(_not_had(f"hub data set {path}", error, _INSTEAD[path])) from error
    first = dataset[0] if len(dataset) else {}
    if "image" not in first or not all(isinstance(first.get(name), kind) for name, kind in columns.items()):
        came = ", ".join(f"{name} ({type(value).__name__})" for name, value in first.items())
        raise DataError(
            f"hub data set {path}, split {split}, has {came or 'no rows'}; expected image, {', '.join(columns)}; "
            f"instead, {_INSTEAD[path]}"
        )
    return dataset.cast_column("image", datasets.Image(decode=False))


def checkpoint(name: str, revision: str = "main") -> Path:
    """Return the folder of a checkpoint's files in the hub's cache, fetched where they are lacking.

    Raises:
        DataError: the hub is out of reach, has no such checkpoint, or has not all of its files; no room for them.
    """
    from lmms_fixattn.data import hub_files

    try:
        folder = hub_files.configuration(name, revision)
        hub_files.check_disk_space(name, folder.name)
        hub_files.download_weights(name, folder.name)
    except DataError:
        raise
    except Exception as error:
        raise DataError(_not_had(f"checkpoint {name}", error, "name a local directory")) from error
    present = {path.name for path in folder.iterdir() if path.is_file()}  # no links to files that were not copied
    weights = weight_files(folder / _INDEX) if _INDEX in present else [_WEIGHTS]
    parts = [*_PARTS, *((file,) for file in weights)]
    if lacking := [" or ".join(files) for files in parts if present.isdisjoint(files)]:
        raise DataError(
            f"checkpoint {name} lacks {len(lacking)} files in {folder}, such as {lacking[0]}; fetch the rest with "
            "lmms-fixattn data --fetch, or name another checkpoint"
        )
    return folder


def weight_files(index: Path) -> list[str]:
    """Return the files that hold a checkpoint's weights, by its index, in alphabetical order.

    Raises:
        UserError: it is no index.
    """
    files = read_object(index, '{"weight_map": {...}}').get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise DataError(f"{index}: expected the file of every weight under 'weight_map'; fetch the checkpoint anew")
    return sorted(set(files.values()))


def _not_had(what: str, error: Exception, instead: str) -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE and isinstance(error, OSError):
        return (
            f"{what} is not in this machine's cache of the hub; nothing is fetched under HF_HUB_OFFLINE: run "
            f"lmms-fixattn data --fetch where there is a network and copy its HF_HOME, or {instead}"
        )
    reason = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    return f"{what} could not be loaded ({reason}); give this machine access to the hub, or {instead}"
