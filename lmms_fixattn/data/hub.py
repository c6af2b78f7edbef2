"""The data sets of the Hugging Face hub that stand in for a COCO folder. Public: no login is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmms_fixattn.data import DataError
from lmms_fixattn.data.coco import HOW_TO_GET_COCO

CHAIR = "tsunghanwu/mscoco_chair"
CHAIR_COLUMNS = {"question_id": (int, str), "gt_object": list}  # the COCO image id, the node words of the truth
POPE = "lmms-lab-encoder/POPE"  # configuration Full: the published questions, one split a kind, with their images
POPE_COLUMNS = {"question_id": (int, str), "question": str, "answer": str, "image_source": str}

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
        dataset = datasets.load_dataset(path, name, split=split)
    except Exception as error:
        raise DataError(
            f"hub data set {path} could not be loaded ({type(error).__name__}: {str(error).splitlines()[0]}); "
            f"give this machine access to the hub, or {_INSTEAD[path]}"
        ) from error
    first = dataset[0] if len(dataset) else {}
    if "image" not in first or not all(isinstance(first.get(name), kind) for name, kind in columns.items()):
        came = ", ".join(f"{name} ({type(value).__name__})" for name, value in first.items())
        raise DataError(
            f"hub data set {path}, split {split}, has {came or 'no rows'}; expected image, {', '.join(columns)}; "
            f"instead, {_INSTEAD[path]}"
        )
    return dataset.cast_column("image", datasets.Image(decode=False))
