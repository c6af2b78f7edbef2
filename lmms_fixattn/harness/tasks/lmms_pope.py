"""lmms-eval's own task `pope`: the rows and figures that it does not give.

It takes an answer for right only if it is the bare word yes or no, and its yes_ratio is that of the labels. Prompt,
answers and its figures stay as they are; beside them a result carries the official parser's figures, and each sample a
row `n` as `pope_coco` writes it, so that `compare` and `export` read the answers of `pope` too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from lmms_fixattn.data import hub
from lmms_fixattn.harness.tasks.tree import leaves
from lmms_fixattn.scoring import pope
from lmms_fixattn.scoring.files.entries import image_number

_log = logging.getLogger(__name__)

PARSER = "official"
Rows = dict[str, list[dict[str, Any]]]
"""Rows by task."""


@contextmanager
def rows_recorded(tasks: Mapping[Any, Any]) -> Iterator[Rows]:
    """Let tasks on the published POPE add `n` to what process_results returns, inside the block.

    Args:
        tasks: a task dictionary of lmms-eval, with groups as further dictionaries.

    Yields:
        A row each answer that this process scored, filled in as they are scored; every such task has its key at once.
    """
    recorded: Rows = {}
    with ExitStack() as stack:
        for task in leaves(tasks):
            if _is_readable(task):
                recorded[task.config.task] = []
                task.process_results = _recording(task.process_results, recorded[task.config.task])
                stack.callback(delattr, task, "process_results")  # the class's own shows again
        yield recorded


def figures(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return POPE's figures by the official parser, of all rows and of each category; {} without rows."""
    rows = list(rows)
    categories = sorted({row["category"] for row in rows if row["category"]})
    parts = {"all": rows} | {name: [row for row in rows if row["category"] == name] for name in categories}
    return {"parser": PARSER, **{name: pope.figures(part, PARSER) for name, part in parts.items()}} if rows else {}


def in_words(figures: Mapping[str, Any]) -> str:
    """Return in one line what :func:`figures` found over all rows."""
    whole = figures["all"]
    return (
        f"by the {figures['parser']} parser: accuracy {whole['accuracy']:.2f}, f1 {whole['f1']:.2f}, yes_ratio of the "
        f"answers {whole['yes_ratio']:.2f} (percent, n = {whole['n']}); lmms-eval's own figures take only the bare "
        "words yes and no for answers, and its yes_ratio is of the labels"
    )


def _is_readable(task: Any) -> bool:
    """Whether a task asks the published questions, and every one makes a row: no answer must be lost for its form."""
    if getattr(task.config, "dataset_path", None) != hub.POPE:
        return False
    try:
        for doc in task.eval_docs_no_media:
            _row(doc, [""])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        cause = f"{type(error).__name__}: {error}"
        _log.warning("%s: lmms-eval's figures only, as a question is of an unknown form (%s)", task.config.task, cause)
        return False
    return True


def _recording(process_results: Any, recorded: list[dict[str, Any]]) -> Any:
    seen = set()

    def process_and_record(doc: Mapping[str, Any], results: Any, *others: Any, **named: Any) -> dict[str, Any]:
        metrics = process_results(doc, results, *others, **named)
        row = _row(doc, results)
        key = row["category"], row["question_id"], row["question"]
        if key not in seen:  # lmms-eval scores repeats of a question once more each
            seen.add(key)
            recorded.append(row)
        return {**metrics, "n": [row]}

    return process_and_record


def _row(doc: Mapping[str, Any], results: Any) -> dict[str, Any]:
    answer = results[0][0] if isinstance(results[0], list) else results[0]
    text = str(answer).strip()
    return {
        "image_id": image_number(doc["image_source"], "image_source"),
        "question_id": int(doc["question_id"]),
        "turn": 1,
        "question": doc["question"],
        "label": doc["answer"].strip().lower(),
        "answer": text,
        "predicted": pope.parse_answer(text, PARSER),
        "parser": PARSER,
        "category": doc.get("category") or "",
    }
