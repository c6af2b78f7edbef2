"""What the YAML of pope_coco, pope_demo and their chats names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from lmms_fixattn.data import DataError, hub, image_lists, pope_questions
from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.data.pope_questions import PopeQuestion
from lmms_fixattn.metrics import pope
from lmms_fixattn.task_glue.documents import DEMO_SCENES, Documents, dataset_of
from lmms_fixattn.task_glue.settings import Settings
from lmms_fixattn.task_glue.visual import doc_to_visual

_MEANS = ("accuracy", "yes_ratio")  # means over questions: lmms-eval averages them and gives their standard errors
_RATIOS = ("precision", "recall", "f1")
_COUNTS = ("tp", "fp", "tn", "fn", "unparsed")
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
        """Return the questions: from the setting's files, else from the hub, else built from the annotations."""
        settings = Settings.of_environment()
        self.parser = settings.pope_parser
        pope.parse_answer("yes", self.parser)  # an unknown parser stops here and not after the run
        if self.demo:
            return self._built(CocoFolder(DEMO_SCENES), sample=True)
        folder = None if settings.coco is None else CocoFolder(Path(settings.coco))
        choice = settings.pope
        if choice == "hub" or (choice is None and folder is None):
            return self._of_hub()
        if folder is None:
            raise DataError(
                f"LMMS_FIXATTN_POPE={choice} needs images: set LMMS_FIXATTN_COCO to a COCO folder, or set "
                "LMMS_FIXATTN_POPE=hub"
            )
        if choice is None:
            unreachable = _hub_error()
            if unreachable is None:
                return self._of_hub()
            _log.warning("%s: POPE's questions are built from the annotations of %s", unreachable, folder.root)
            # None of POPE's images: another data set, of which images are drawn. Some of them: the others are an error.
            choice = "build" if folder.holds_any(image_lists.load("pope_coco").ids) else "sample"
        if choice in ("build", "sample"):
            return self._built(folder, sample=choice == "sample")
        return self._of_files(folder, Path(choice).expanduser())

    def _record(self, images: image_lists.ImageList, source: str, questions: str) -> None:
        self.image_list, self.image_list_sha256 = images.name, images.sha256
        self.source, self.questions = source, questions

    def _built(self, folder: CocoFolder, sample: bool) -> Any:
        if sample:
            shown: dict[int, dict[str, None]] = {}
            for image_id, name in folder.instances(folder.image_ids(folder.splits[0])):
                shown.setdefault(image_id, {})[name] = None
            ids = pope_questions.choose_images({image_id: list(names) for image_id, names in shown.items()}, seed=_SEED)
            chosen = image_lists.ImageList(f"drawn by seed {_SEED}", ids)
        else:
            chosen = image_lists.load("pope_coco")
        images = folder.images(chosen.ids)
        self._record(
            chosen,
            "demo scenes" if self.demo else f"folder {folder.root}",
            f"built from the annotations, seed {_SEED}",
        )
        questions = pope_questions.build({image.image_id: image.objects for image in images}, self.kind, _SEED)
        return self._dataset(questions, {image.image_id: str(image.path) for image in images})

    def _of_files(self, folder: CocoFolder, files: Path) -> Any:
        if not files.is_dir():
            raise DataError(f"LMMS_FIXATTN_POPE={files} is neither a folder nor one of hub, build, sample")
        questions = pope_questions.read(files, self.kind, folder.image_id)
        images = folder.images(list(dict.fromkeys(question.image_id for question in questions)))
        self._record(_images_of(questions), f"folder {folder.root}", f"files {files / f'coco_pope_{self.kind}.json'}")
        return self._dataset(questions, {image.image_id: str(image.path) for image in images})

    def _of_hub(self) -> Any:
        dataset = hub.load(hub.POPE, "Full", self.kind, hub.POPE_COLUMNS)
        questions = [
            PopeQuestion(
                question_id=int(row["question_id"]),
                image_id=pope_questions.trailing_id(row["image_source"]),
                question=row["question"],
                label=row["answer"].strip().lower(),
            )
            for row in dataset.remove_columns("image")
        ]
        self._record(_images_of(questions), f"hub {hub.POPE}", f"hub {hub.POPE}, split {self.kind}")
        if not self.chat:
            return _columns(dataset.select_columns(["image"]), self._rows(questions))
        firsts = {question.image_id: index for index, question in reversed(list(enumerate(questions)))}
        chats = self._chats(questions)
        return _columns(dataset.select_columns(["image"]).select([firsts[chat["image_id"]] for chat in chats]), chats)

    def _dataset(self, questions: list[PopeQuestion], paths: dict[int, str]) -> Any:
        rows = self._chats(questions) if self.chat else self._rows(questions)
        return dataset_of([{"image": paths[row["image_id"]]} | row for row in rows])

    def _rows(self, questions: list[PopeQuestion]) -> list[dict[str, Any]]:
        return [asdict(question) | {"parser": self.parser} for question in questions]

    def _chats(self, questions: list[PopeQuestion]) -> list[dict[str, Any]]:
        chats = []
        for image_id, group in groupby(sorted(questions, key=lambda question: question.image_id), _image_id):
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


@cache
def _hub_error() -> str | None:
    """Return why the hub's questions cannot be had, None when they can.

    Asked once a process: the three kinds of a run must come from one place, and an absent network takes half a minute
    to show.
    """
    try:
        hub.load(hub.POPE, "Full", pope_questions.KINDS[0], hub.POPE_COLUMNS)
    except DataError as error:
        return str(error).partition(";")[0]
    return None


def _image_id(question: PopeQuestion) -> int:
    return question.image_id


def _images_of(questions: list[PopeQuestion]) -> image_lists.ImageList:
    ids = tuple(sorted({question.image_id for question in questions}))
    frozen = image_lists.load("pope_coco")
    return frozen if ids == frozen.ids else image_lists.ImageList("as in the questions", ids)


def _columns(images: Any, rows: list[dict[str, Any]]) -> Any:
    for name in rows[0]:
        images = images.add_column(name, [row[name] for row in rows])
    return images


_DOCUMENTS: dict[str, Callable[[], PopeDocuments]] = {
    f"{place}_{kind}_{form}": partial(PopeDocuments, kind=kind, demo=place == "demo", chat=form == "chats")
    for place in ("coco", "demo")
    for kind in pope_questions.KINDS
    for form in ("documents", "chats")
}


def __getattr__(name: str) -> PopeDocuments:
    # As in task_glue.chair: each load of a task records its own data.
    if name in _DOCUMENTS:
        return _DOCUMENTS[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score one answer: {metric: its share of the corpus figure}.

    `n` holds the whole row for the sample log, means hold the answer's own figure, ratios of sums the label and answer.
    """
    return _scored([_row(doc, doc["question_id"], doc["question"], doc["label"], results[0], turn=1)])


def process_chat(doc: dict[str, Any], results: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Score the answers of one conversation: as process_results, with a list of rows, and each turn's accuracy.

    Raises:
        DataError: not one answer a question.
    """
    answers = [results[0]] if isinstance(results[0], str) else list(results[0])
    if len(answers) != len(doc["questions"]):
        raise DataError(f"image {doc['image_id']}: {len(answers)} answers came for {len(doc['questions'])} questions")
    turns = zip(doc["question_ids"], doc["questions"], doc["labels"], answers, strict=True)
    rows = [_row(doc, *turn, turn=number) for number, turn in enumerate(turns, start=1)]
    accuracies = {f"accuracy_turn_{row['turn']}": float(_figures([row])["accuracy"]) for row in rows}
    return _scored(rows) | accuracies


def _row(doc: dict[str, Any], question_id: int, question: str, label: str, answer: str, turn: int) -> dict[str, Any]:
    text = str(answer).strip()
    return {
        "image_id": doc["image_id"],
        "question_id": question_id,
        "turn": turn,
        "question": question,
        "label": label,
        "answer": text,
        "predicted": pope.parse_answer(text, doc["parser"]),
        "parser": doc["parser"],
    }


def _scored(rows: list[dict[str, Any]]) -> dict[str, Any]:
    figures = _figures(rows)
    counted = [{key: row[key] for key in ("label", "answer", "parser")} for row in rows]
    return (
        {"n": rows}
        | {metric: float(figures[metric]) for metric in _MEANS}
        | {metric: int(figures[metric]) for metric in _COUNTS}
        | dict.fromkeys(_RATIOS, counted)
    )


def _figures(rows: list[dict[str, Any]]) -> dict[str, float | int]:
    return pope.figures(rows, rows[0]["parser"])


def _figure(metric: str) -> Callable[[list[list[dict[str, Any]]]], float | int]:
    def aggregate(documents: list[list[dict[str, Any]]]) -> float | int:
        return _figures([row for rows in documents for row in rows])[metric]

    aggregate.__name__ = aggregate.__qualname__ = metric
    return aggregate


precision, recall, f1 = map(_figure, _RATIOS)
n = _figure("n")


def total(counts: list[int]) -> int:
    """Sum the counts of all documents."""
    return sum(counts)


def chat_to_text(doc: dict[str, Any], **rounds: Any) -> str:
    """Return a chat's first question, which is what lmms-eval shows of a document.

    Raises:
        NotImplementedError: a model of lmms-eval's "simple" form asks for a later turn; it has no conversations.
    """
    if rounds.get("round_idx"):
        raise NotImplementedError("pope chats feed answers back into a conversation: run without --force_simple")
    return str(doc["questions"][0])


def chat_to_messages(
    doc: dict[str, Any],
    round_idx: int | None = None,
    previous_output: Sequence[str] | None = None,
    previous_round_info: Any = None,
) -> Any:
    """Return the whole conversation up to the question of this round: the image, questions and the model's answers.

    lmms-eval's protocol: a list of messages at first, then (messages, whether the conversation is over, answers, info).
    """
    turn = round_idx or 0
    answers = list(previous_output or ())
    if turn >= len(doc["questions"]):
        return None, True, previous_output, previous_round_info
    asked = [[{"type": "text", "text": question}] for question in doc["questions"][: turn + 1]]
    replied = [[{"type": "text", "text": answer}] for answer in answers]
    asked[0] = [{"type": "image", "url": image} for image in doc_to_visual(doc)] + asked[0]
    messages = [{"role": "user", "content": asked[0]}]
    for reply, question in zip(replied, asked[1:], strict=True):
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": question}]
    if round_idx is None:
        return messages
    return messages, False, previous_output, previous_round_info
