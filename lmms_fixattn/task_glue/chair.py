"""What the YAML of chair_coco and chair_demo's two halves names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lmms_fixattn.data import DataError, hub, image_lists
from lmms_fixattn.data.coco import DEMO_SCENES, HOW_TO_GET_COCO, CocoFolder
from lmms_fixattn.metrics import chair
from lmms_fixattn.task_glue.documents import Documents, dataset_of
from lmms_fixattn.task_glue.settings import Settings

# The corpus figures that are means over captions: lmms-eval averages them itself and gives their standard errors.
_MEANS = ("chair_s", "words", "rep_4", "looped", "unterminated")
_RATIOS = ("chair_i", "recall", "precision", "f1", "chair_i_unique")


@dataclass
class ChairDocuments(Documents):
    """Load captioning documents: image_id, image, truth (the node words of what the image shows), analyser.

    Attributes:
        demo: the split of the package's scenes that is captioned; "" for COCO's images.
        analyser: how captions become objects (LMMS_FIXATTN_CHAIR_ANALYSER).
    """

    demo: str = ""
    analyser: str = ""

    def load(self) -> Any:
        """Return the documents of the setting's images, from the COCO folder or else from the hub."""
        settings = Settings.of_environment()
        self.analyser = settings.analyser
        try:
            # An unknown name, or one whose data is not there, stops here and not after the run.
            _analyser(self.analyser)
        except LookupError as error:
            raise DataError(str(error)) from error
        if self.demo:
            folder = CocoFolder(DEMO_SCENES)
            return self._of_folder(folder, image_lists.ImageList(f"demo, {self.demo}", folder.image_ids(self.demo)))
        images = image_lists.load(settings.images)
        if settings.coco is None:
            return self._of_hub(images)
        return self._of_folder(CocoFolder(Path(settings.coco)), images)

    def _record(self, images: image_lists.ImageList, source: str) -> None:
        self.image_list, self.image_list_sha256, self.source = images.name, images.sha256, source

    def _of_folder(self, folder: CocoFolder, images: image_lists.ImageList) -> Any:
        self._record(images, "demo scenes" if self.demo else f"folder {folder.root}")
        found = folder.images(images.ids)
        truth = folder.truth(images.ids, _analyser(self.analyser))
        return dataset_of(
            [
                {
                    "image_id": image.image_id,
                    "image": str(image.path),
                    "truth": sorted(truth[image.image_id]),
                    "analyser": self.analyser,
                }
                for image in found
            ]
        )

    def _of_hub(self, images: image_lists.ImageList) -> Any:
        self._record(images, f"hub {hub.CHAIR}")
        dataset = hub.load(hub.CHAIR, None, "test", hub.CHAIR_COLUMNS)
        row_of = {int(question_id): row for row, question_id in enumerate(dataset["question_id"])}
        lacking = [image_id for image_id in images.ids if image_id not in row_of]
        if lacking:
            raise DataError(
                f"hub data set {hub.CHAIR} lacks {len(lacking)} of the {len(images.ids)} images of list {images.name}; "
                f"set LMMS_FIXATTN_COCO to a COCO folder; {HOW_TO_GET_COCO}"
            )
        rows = dataset.select([row_of[image_id] for image_id in images.ids])
        return (
            rows.select_columns(["image"])
            .add_column("image_id", list(images.ids))
            .add_column("truth", [sorted(set(words)) for words in rows["gt_object"]])
            .add_column("analyser", [self.analyser] * len(images.ids))
        )


_DOCUMENTS: dict[str, Callable[[], ChairDocuments]] = {
    "coco_documents": ChairDocuments,
    "familiar_documents": lambda: ChairDocuments(demo="familiar"),
    "unfamiliar_documents": lambda: ChairDocuments(demo="unfamiliar"),
}


def __getattr__(name: str) -> ChairDocuments:
    # lmms-eval resolves a `!function` at each load of a task: each load records its own data, whatever was loaded
    # before it in the same process.
    if name in _DOCUMENTS:
        return _DOCUMENTS[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _analyser(name: str) -> chair.Analyser:
    return chair.make_analyser(name)


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score one caption: {metric: its share of the corpus figure}.

    `n` holds the whole row (metrics.chair.score_caption, and the answer's tokens) for the sample log; figures that are
    means hold the caption's own figure; ratios of sums hold the row's counts. Answers of llava_fixattn know whether
    they were cut off and how many tokens they have; any other model's are judged by their last character and have
    none, because lmms-eval passes no token count here.
    """
    answer, truth = results[0], set(doc["truth"])
    terminated = getattr(answer, "terminated", None)
    row = chair.score_caption(doc["image_id"], str(answer), truth, _analyser(doc["analyser"]), terminated)
    alone = chair.corpus_figures([row])
    counts = {key: value for key, value in row.items() if key not in ("caption", "truth")}
    logged = row | {"tokens": getattr(answer, "tokens", None)}
    return {"n": logged} | {metric: float(alone[metric]) for metric in _MEANS} | dict.fromkeys(_RATIOS, counts)


def _figure(metric: str) -> Callable[[list[dict[str, Any]]], float | int]:
    def aggregate(rows: list[dict[str, Any]]) -> float | int:
        return chair.corpus_figures(rows)[metric]

    aggregate.__name__ = aggregate.__qualname__ = metric
    return aggregate


chair_i, recall, precision, f1, chair_i_unique = map(_figure, _RATIOS)
n = _figure("n")
