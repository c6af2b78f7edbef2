"""The documents of pope_coco, pope_demo and their chats, as the YAML names them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from datasets import Dataset

from lmms_fixattn.data import DataError, hub, image_lists, pope_questions
from lmms_fixattn.data.coco import DEMO_CROWDED, CocoFolder
from lmms_fixattn.data.pope_questions import PopeQuestion
from lmms_fixattn.harness.tasks.documents import Documents
from lmms_fixattn.harness.tasks.settings import TaskSettings
from lmms_fixattn.scoring import pope
from lmms_fixattn.scoring.files.entries import image_number

_SEED = 0
_TURNS = 2 * pope_questions.PRESENT

_log = logging.getLogger(__name__)


@dataclass
class PopeDocuments(Documents):
    """Load POPE's questions of one kind: image_id, image, question_id, question, label, parser.

    A chat's document is an image: image_id, image, question_ids, questions, labels, parser.

    Attributes:
        kind: how absent objects are drawn: random, popular or adversarial.
        chat: whether the six questions of an image are one document.
        demo: whether the images are those of the package.
        questions: where the questions come from.
        parser: how answers become yes or no (LMMS_FIXATTN_POPE_PARSER).
    """

    kind: str = ""
    chat: bool = False
    demo: bool = False
    questions: str = ""
    parser: str = ""

    def load(self) -> Any:
        """Return the questions: from the setting's source, else from the hub, else built from the annotations."""
        settings = TaskSettings.of_environment()
        self.parser = settings.pope_parser
        pope.parse_answer("yes", self.parser, "yes")  # an unknown parser stops here and not after the run
        if self.demo:
            demo = CocoFolder(DEMO_CROWDED)
            ids = sorted(image_id for split in demo.splits for image_id in demo.image_ids(split))
            return self._built(demo, image_lists.ImageList("demo_crowded", tuple(ids)))
        folder = None if settings.coco is None else CocoFolder(Path(settings.coco))
        choice = settings.pope
        if choice == "hub" or (choice is None and folder is None):
            return self._of_hub()
        if folder is None:
            raise DataError(
                f"LMMS_FIXATTN_POPE={choice} needs images: set LMMS_FIXATTN_COCO to a COCO folder, or set "
                "LMMS_FIXATTN_POPE=hub"
            )
        if choice is None and not folder.holds_any(image_lists.load("pope_coco").ids):
            choice = "sample"  # another data set than POPE's
        if choice is None:
            unreachable = _hub_error()
            if unreachable is None:
                return self._of_hub()
            _log.warning("%s: POPE's questions are built from the annotations of %s", unreachable, folder.root)
            choice = "build"
        if choice in ("build", "sample"):
            return self._built(folder, _sample(folder) if choice == "sample" else image_lists.load("pope_coco"))
        return self._of_files(folder, Path(choice).expanduser())

    def _built(self, folder: CocoFolder, chosen: image_lists.ImageList) -> Any:
        images = folder.images(chosen.ids)
        self.record_images(chosen, "crowded demo scenes" if self.demo else f"folder {folder.root}")
        self.questions = f"built from the annotations, seed {_SEED}"
        questions = pope_questions.build({image.image_id: image.objects for image in images}, self.kind, _SEED)
        return self._dataset(questions, {image.image_id: str(image.path) for image in images})

    def _of_files(self, folder: CocoFolder, files: Path) -> Any:
        if not files.is_dir():
            raise DataError(f"LMMS_FIXATTN_POPE={files} is neither a folder nor one of hub, build, sample")
        questions = pope_questions.read(files, self.kind, folder.image_id)
        images = folder.images(list(dict.fromkeys(question.image_id for question in questions)))
        self.record_images(_images_of(questions), f"folder {folder.root}")
        self.questions = f"files {files / f'coco_pope_{self.kind}.json'}"
        return self._dataset(questions, {image.image_id: str(image.path) for image in images})

    def _of_hub(self) -> Any:
        every = _hub_questions()
        asked = [row for row, category in enumerate(every["category"]) if category == self.kind]
        if not asked:
            found = ", ".join(sorted(set(every["category"])))
            raise DataError(f"hub data set {hub.POPE} has no question of category {self.kind}, only of {found}")
        dataset = every.select(asked)
        questions = [
            PopeQuestion(
                int(row["question_id"]),
                image_number(row["image_source"], "image_source"),
                row["question"],
                row["answer"].strip().lower(),
            )
            for row in dataset.remove_columns("image")
        ]
        self.record_images(_images_of(questions), f"hub {hub.POPE}")
        self.questions = f"hub {hub.POPE}, category {self.kind}"
        rows = self._rows(questions)
        firsts = {question.image_id: index for index, question in reversed(list(enumerate(questions)))}
        documents = dataset.select_columns(["image"])
        if self.chat:
            documents = documents.select([firsts[row["image_id"]] for row in rows])
        for name in rows[0]:
            documents = documents.add_column(name, [row[name] for row in rows])
        return documents

    def _dataset(self, questions: list[PopeQuestion], paths: dict[int, str]) -> Any:
        return Dataset.from_list([{"image": paths[row["image_id"]]} | row for row in self._rows(questions)])

    def _rows(self, questions: list[PopeQuestion]) -> list[dict[str, Any]]:
        """Return the documents without their images: a question each, or of a chat an image each."""
        if not self.chat:
            return [asdict(question) | {"parser": self.parser} for question in questions]
        chats = []
        for image_id, group in groupby(sorted(questions, key=attrgetter("image_id")), attrgetter("image_id")):
            turns = list(group)
            if len(turns) != _TURNS:
                raise DataError(f"image {image_id} has {len(turns)} POPE questions of kind {self.kind}, not {_TURNS}")
            chats.append(
                {
                    "image_id": image_id,
                    "question_ids": [turn.question_id for turn in turns],
                    "questions": [turn.question for turn in turns],
                    "labels": [turn.label for turn in turns],
                    "parser": self.parser,
                }
            )
        return chats


def _sample(folder: CocoFolder) -> image_lists.ImageList:
    """Draw images of the folder's first split."""
    shown: dict[int, dict[str, None]] = {}
    for image_id, name in folder.instances(folder.image_ids(folder.splits[0])):
        shown.setdefault(image_id, {})[name] = None
    ids = pope_questions.choose_images({image_id: list(names) for image_id, names in shown.items()}, seed=_SEED)
    return image_lists.ImageList(f"drawn by seed {_SEED}", ids)


def _hub_questions() -> Any:
    return hub.load(hub.POPE, hub.POPE_CONFIGURATION, "test", hub.POPE_COLUMNS)


@cache
def _hub_error() -> str | None:
    """Return why the hub's questions cannot be had, None when they can.

    Asked once a process: the three kinds of a run must come from one place, and an absent network takes half a minute
    to show.
    """
    try:
        _hub_questions()
    except DataError as error:
        return str(error).partition(";")[0]
    return None


def _images_of(questions: list[PopeQuestion]) -> image_lists.ImageList:
    ids = tuple(sorted({question.image_id for question in questions}))
    frozen = image_lists.load("pope_coco")
    return frozen if ids == frozen.ids else image_lists.ImageList("as in the questions", ids)


_DOCUMENTS: dict[str, Callable[[], PopeDocuments]] = {
    f"{place}_{kind}{form}": partial(PopeDocuments, kind=kind, demo=place == "demo", chat=form == "_chat")
    for place in ("coco", "demo")
    for kind in pope_questions.KINDS
    for form in ("", "_chat")
}


def __getattr__(name: str) -> PopeDocuments:
    # As in harness.tasks.chair: each load of a task records its own data.
    if name in _DOCUMENTS:
        return _DOCUMENTS[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
