"""What the YAML of chair_coco and chair_demo's two halves names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset

from lmms_fixattn.data import DataError, hub, image_lists, known_images
from lmms_fixattn.data.coco import DEMO_SCENES, CocoFolder
from lmms_fixattn.data.image_cache import ImageCache
from lmms_fixattn.harness.tasks.documents import Documents
from lmms_fixattn.harness.tasks.settings import TaskSettings
from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.figures import CAPTION_FIGURES, means
from lmms_fixattn.scoring.objects.coco_objects import NODE_WORD

# The corpus figures that are means over captions: lmms-eval averages them itself and gives their standard errors.
_MEANS = means(CAPTION_FIGURES, "captions")
_RATIOS = tuple(name for name in CAPTION_FIGURES if name not in _MEANS)
_SEED = 0

_log = logging.getLogger(__name__)


@dataclass
class ChairDocuments(Documents):
    """Load captioning documents: image_id, image, truth (the node words of what the image shows), analyser.

    Attributes:
        demo: the split of the package's scenes that is captioned; "" for COCO's images.
        analyser: how captions become objects (LMMS_FIXATTN_CHAIR_ANALYSER).
        truth: where the truth is from, and which analyser read the reference captions.
    """

    demo: str = ""
    analyser: str = ""
    truth: str = ""

    def load(self) -> Any:
        """Return the documents of the setting's images: from the COCO folder, else one by one, or the hub's own."""
        settings = TaskSettings.of_environment()
        self.analyser = settings.analyser
        _analyser(self.analyser)  # an unknown name, or one whose data is not there, stops here and not after the run
        if self.demo:
            folder = CocoFolder(DEMO_SCENES)
            return self._of_folder(folder, image_lists.ImageList(f"demo, {self.demo}", folder.image_ids(self.demo)))
        if settings.images == image_lists.HUB:
            return self._of_hub()
        drawn = settings.images in image_lists.OF_FOLDER
        if settings.coco is not None:
            folder = CocoFolder(Path(settings.coco))
            images = _of_all(folder, settings.images) if drawn else image_lists.load(settings.images)
            return self._of_folder(folder, images)
        if drawn:
            raise DataError(
                f"LMMS_FIXATTN_IMAGES={settings.images} is about a COCO folder of your own: name it with "
                "LMMS_FIXATTN_COCO, or leave LMMS_FIXATTN_IMAGES unset for the images of the paper"
            )
        cache = ImageCache(settings.cache, settings.image_host, settings.offline)
        return self._one_by_one(image_lists.load(settings.images), cache)

    def _of_folder(self, folder: CocoFolder, images: image_lists.ImageList) -> Any:
        self.record_images(images, "demo scenes" if self.demo else f"folder {folder.root}")
        self.truth = f"annotations, {self.analyser}"
        found = folder.images(images.ids)
        truth = folder.truth(images.ids, _analyser(self.analyser))
        return self._dataset({image.image_id: image.path for image in found}, truth)

    def _one_by_one(self, images: image_lists.ImageList, cache: ImageCache) -> Any:
        known = known_images.of(images)
        self.record_images(images, f"image cache {cache.root}")
        self.truth = f"package, {known_images.ANALYSER}, sha256 {known_images.SHA256}"
        cache.fetch({image_id: image.size for image_id, image in known.items()})
        truth = {image_id: image.objects for image_id, image in known.items()}
        return self._dataset({image_id: cache.path(image_id) for image_id in images.ids}, truth)

    def _dataset(self, paths: Mapping[int, Path], truth: Mapping[int, Collection[str]]) -> Any:
        return Dataset.from_list(
            [
                {"image_id": image_id, "image": str(path), "truth": sorted(truth[image_id]), "analyser": self.analyser}
                for image_id, path in paths.items()
            ]
        )

    def _of_hub(self) -> Any:
        dataset = hub.load(hub.CHAIR, None, "test", hub.CHAIR_COLUMNS)
        row_of = {int(question_id): row for row, question_id in enumerate(dataset["question_id"])}
        if len(row_of) < len(dataset):
            raise DataError(f"hub data set {hub.CHAIR}: expected a row an image, not {len(dataset)} of {len(row_of)}")
        images = image_lists.ImageList("hub", tuple(sorted(row_of)))
        self.record_images(images, f"hub {hub.CHAIR}")
        self.truth = self.source
        rows = dataset.select([row_of[image_id] for image_id in images.ids])
        return (
            rows.select_columns(["image"])
            .add_column("image_id", list(images.ids))
            .add_column("truth", [_node_words(*row) for row in zip(images.ids, rows["gt_object"], strict=True)])
            .add_column("analyser", [self.analyser] * len(images.ids))
        )


def _node_words(image_id: int, words: Sequence[str]) -> list[str]:
    if odd := [word for word in words if word not in NODE_WORD]:
        raise DataError(f"hub data set {hub.CHAIR}, image {image_id}: {odd[0]!r} names none of the 80 COCO objects")
    return sorted({NODE_WORD[word] for word in words})


def _of_all(folder: CocoFolder, which: str) -> image_lists.ImageList:
    """Return "all" images of the folder's first split that can be scored, or a "sample" of 500 of them."""
    split = folder.splits[0]
    every, ids = folder.image_ids(split), folder.scorable(split)
    if not ids:
        raise DataError(f"none of the {len(every)} images of {split} in {folder.root} has an instance or a caption")
    if blank := len(every) - len(ids):
        _log.warning("%d of %d images of %s have neither instances nor captions: left out", blank, len(every), split)
    if which == "sample":
        return image_lists.sample(f"drawn from {split} by seed {_SEED}", ids, seed=_SEED)
    return image_lists.ImageList(f"all of {split}", ids)


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

    `n` holds the whole row (scoring.chair.score_caption, and the answer's tokens) for the sample log; figures that are
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
