"""The data sets of the Hugging Face hub that stand in for a COCO folder. Public: no login is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmms_fixattn.data import DataError
from lmms_fixattn.data.coco import HOW_TO_GET_COCO

CHAIR = "tsunghanwu/mscoco_chair"  # columns image, question_id (the COCO image id), gt_object (node words)
POPE = "lmms-lab-encoder/POPE"  # configuration Full: the published questions, a split a kind, with their images


def load(path: str, name: str | None, split: str, columns: Mapping[str, type]) -> Any:
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
            f"set LMMS_FIXATTN_COCO to a COCO folder, or give this machine access to the hub; {HOW_TO_GET_COCO}"
        ) from error
    first = dataset[0] if len(dataset) else {}
    wrong = [column for column, kind in columns.items() if not isinstance(first.get(column), kind)]
    if "image" not in dataset.column_names or wrong:
        raise DataError(
            f"hub data set {path} has columns {', '.join(dataset.column_names)}; expected image and "
            + ", ".join(f"{column} ({kind.__name__})" for column, kind in columns.items())
            + f"; set LMMS_FIXATTN_COCO to a COCO folder instead; {HOW_TO_GET_COCO}"
        )
    return dataset.cast_column("image", datasets.Image(decode=False))
