"""Every reader of the package with a small file that it takes, and ways to spoil that file.

A reader is whatever turns a file that somebody else wrote into values. `READERS` is the one list of them:
test_every_reader.py finds the functions that open files in the package's source, and asks of each that a reader here
goes through it, or that `OWN` says why none has to.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from hypothesis import strategies as st
from PIL import Image
from runs_on_disk import answer_sample, caption_sample, write_result

from lmms_fixattn.data import DataError, hub, image_lists, images, pope_questions
from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.data.image_cache import ImageCache
from lmms_fixattn.errors import UserError
from lmms_fixattn.harness.journal import Journal, to_json
from lmms_fixattn.harness.sweep_config import read_plan
from lmms_fixattn.methods.statistics import AttentionStatistics
from lmms_fixattn.methods.text_model import TextModel
from lmms_fixattn.report.evidence import read_index
from lmms_fixattn.report.runs import read_run
from lmms_fixattn.scoring.files.entries import overall_metrics
from lmms_fixattn.scoring.files.questions import read_answers_to, read_questions
from lmms_fixattn.scoring.files.reading import read_answers, read_captions, read_ground_truth, what_is_in

ODD: tuple[Any, ...] = (
    None, True, False, 0, 7, 42.0, 1e3, -1, 2**63, 10**400, float("nan"), float("inf"),
    "", " ", "x", "7 ", "1e3", "-1", "yes", "no", "true", "null", "\x00", "\ud800", "٤٢", "a\nb", "000000000007.jpg",
    [], [[]], {}, {"x": 1},
)  # fmt: skip


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


def as_lines(content: Any) -> bytes:
    """Write one value a line; a list that is no list any more as JSON."""
    return (
        "".join(f"{json.dumps(row)}\n" for row in content).encode() if isinstance(content, list) else as_json(content)
    )


def as_table(content: Any, delimiter: str = ",") -> bytes:
    """Write a table; what no table can hold is written as JSON in its cell."""
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        return as_json(content)
    columns = list(dict.fromkeys(key for row in content for key in row))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(columns)
    for row in content:
        cells = [row.get(column, "") for column in columns]
        writer.writerow([cell if isinstance(cell, str) else "" if cell is None else json.dumps(cell) for cell in cells])
    return out.getvalue().encode("utf-8", errors="surrogatepass")


def as_ids(content: Any) -> bytes:
    """Write a list of ids, one a line."""
    rows = content if isinstance(content, list) else [content]
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows).encode(
        "utf-8", errors="surrogatepass"
    )


def as_yaml(content: Any) -> bytes:
    return yaml.safe_dump(content, allow_unicode=False).encode("utf-8", errors="surrogatepass")


@dataclass(frozen=True)
class Reader:
    """How one kind of file is read.

    Attributes:
        read: from the file's path to all that is made of it, something whose repr says everything.
        good: what a file that is taken holds; every value in it is read. None: only its bytes are spoiled.
        writers: ways to write it down.
        name: of the file, below a folder.
        prepare: writes what lies beside it into that folder.
        errors: what it refuses with.
        checks: keys that say again what stands elsewhere, and may be left out, or hold more around it.
        labels: keys that are looked for and whose value is not used.
        twice_is_once: whether an entry at such a path of keys, there twice, says nothing new.
        content: the bytes, where there is no good.
    """

    read: Callable[[Path], object]
    good: Any = None
    writers: tuple[Callable[[Any], bytes], ...] = (as_json,)
    name: str = "spoiled.json"
    prepare: Callable[[Path], object] = field(default=lambda folder: None)
    errors: tuple[type[Exception], ...] = (UserError, DataError)
    checks: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    twice_is_once: Callable[[tuple[Any, ...]], bool] = lambda path: False
    content: bytes = b""

    def written(self) -> bytes:
        """Return the file as it is taken."""
        return self.content or self.writers[0](self.good)


class Change(NamedTuple):
    """A spoiled content."""

    content: Any
    silent: bool
    """Whether reading it as if nothing had changed would be right."""


def _places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield (*path, key)
        yield from _places(content[key], (*path, key))


def _plain(value: Any) -> str:
    """Return what a value says, however it is written: 7, "7 " and "007" are one number, Yes and "yes " one label.

    A cell of a table with nothing in it, or a blank, says null.
    """
    if value is None:
        return ""
    text = str(value).strip().lower() if isinstance(value, str | int) and not isinstance(value, bool) else repr(value)
    return text.lstrip("0") if text.isdecimal() else text


def _holds(new: Any, old: Any) -> bool:
    return new is None or (isinstance(new, str) and str(old) in new)


@st.composite
def changes(draw: st.DrawFn, reader: Reader) -> Change:
    """Draw a content of which one value is replaced, lost, doubled, wrapped or called otherwise."""
    content = copy.deepcopy(reader.good)
    path = draw(st.sampled_from(list(_places(content))))
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    old = parent[key]
    what = draw(st.sampled_from(["replace"] * 6 + ["near"] * 2 + ["lose", "double", "wrap", "rename"]))
    if what == "lose":
        del parent[key]
    elif what == "double" and isinstance(parent, list):
        parent.insert(draw(st.integers(0, len(parent))), copy.deepcopy(old))
        return Change(content, reader.twice_is_once(path))
    elif what == "rename" and isinstance(parent, dict):
        called = draw(st.sampled_from([f"{key}x", f" {key}", str(key).upper(), "7"]))
        parent[called] = parent.pop(key)
        return Change(content, bool(reader.checks & set(path)) or _plain(called) == _plain(key) or old is None)
    elif what == "wrap":
        parent[key] = draw(st.sampled_from([[old], {"x": old}, [old, old]]))
    elif what == "near" and isinstance(old, str):
        parent[key] = draw(st.sampled_from([f"{old}x", f"x{old}", old[1:], f"{old} {old}"]))
    elif what == "near" and isinstance(old, int) and not isinstance(old, bool):
        parent[key] = draw(st.sampled_from([old + 1, str(old + 1), float(old), f"{old}.0", -old - 1]))
    else:
        parent[key] = draw(st.sampled_from(ODD))
    new = parent.get(key, old) if isinstance(parent, dict) else parent[key] if key < len(parent) else None
    kept = old is None if what == "lose" else _plain(new) == _plain(old)
    labelled = bool(reader.labels & set(path)) and what not in ("lose", "rename")
    checked = bool(reader.checks & set(path)) and (what == "lose" or _holds(new, old))
    return Change(content, kept or labelled or checked)


@st.composite
def broken(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw bytes changed, lost, put in, repeated or cut off, or another encoding of them."""
    if draw(st.integers(0, 9)) == 0:
        text = content.decode("utf-8", errors="replace")
        return draw(
            st.sampled_from(
                [text.encode("utf-16"), text.encode("utf-8-sig"), b"\x1f\x8b" + content, b"PK\x03\x04" + content]
            )
        )
    spoiled = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(spoiled)))
        what = draw(st.sampled_from(["change", "lose", "insert", "repeat", "cut"]))
        if what == "change":
            spoiled[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif what == "lose":
            del spoiled[place : place + draw(st.integers(1, 12))]
        elif what == "insert":
            spoiled[place:place] = draw(
                st.sampled_from([b"\x00", b"\r\n", b"\n", b'"', b"{", b"[", b"]", b",", b"\t", b"\xff", b"9" * 25])
            )
        elif what == "repeat":
            spoiled[place:place] = spoiled[: draw(st.integers(1, 60))]
        else:
            del spoiled[place:]
    return bytes(spoiled)


DOG = "Is there a dog in the image?"
CAT = "Is there a cat in the image?"
_CAPTIONS = [
    {"image_id": 11, "caption": "A dog.", "terminated": True, "tokens": 5},
    {"image_id": 22, "caption": "A cat and a dog.", "terminated": False, "tokens": 9},
    {"image_id": 33, "caption": "Nothing.", "terminated": None, "tokens": None},
]
_ANSWERS = [
    {"image_id": 11, "question": DOG, "label": "yes", "answer": "Yes, it is.", "question_id": 1, "split": "random"},
    {"image_id": 11, "question": CAT, "label": "no", "answer": "No.", "question_id": 2, "split": "random"},
    {"image_id": 22, "question": DOG, "label": "no", "answer": "Yes", "question_id": 3, "split": "popular"},
]
_NAMED = {11: "000000000011.jpg", 22: "COCO_val2014_000000000022.jpg"}
_QUESTIONS = [
    {"question_id": 1, "image": _NAMED[11], "text": DOG, "label": "yes"},
    {"question_id": 2, "image": _NAMED[11], "text": CAT, "label": "no"},
    {"question_id": 3, "image": _NAMED[22], "text": DOG, "label": "no"},
]
_JOINED = [
    {"question_id": 1, "prompt": f"{DOG}\nAnswer yes or no.", "text": "Yes"},
    {"question_id": 2, "prompt": CAT, "text": "No"},
    {"question_id": 3, "prompt": DOG, "text": "No, none."},
]
_IMAGES = [{"id": 11, "file_name": "11.jpg", "width": 7, "height": 5}, {"id": 22, "file_name": "b/22.jpg"}]
_INSTANCES = {
    "images": _IMAGES,
    "annotations": [{"image_id": 11, "category_id": 1}, {"image_id": 22, "category_id": 2}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
}
_REFERENCE_CAPTIONS = {
    "images": [{"id": 11}, {"id": 22}],
    "annotations": [{"image_id": 11, "caption": "A dog."}, {"image_id": 22, "caption": "A cat."}],
}
_NO_IMAGES = {"annotations": _REFERENCE_CAPTIONS["annotations"]}


def _chair_samples() -> list[dict[str, Any]]:
    rows = [
        caption_sample(11, "A dog.", ["dog"], tokens=4, terminated=True),
        caption_sample(22, "A cat.", ["cat", "dog"], tokens=5, terminated=False),
    ]
    kept = ("image_id", "caption", "terminated", "tokens", "truth")
    return [{"doc_id": row["doc_id"], "n": {key: row["n"][key] for key in kept}} for row in rows]


def _pope_samples() -> list[dict[str, Any]]:
    rows = [answer_sample(11, [(DOG, "yes", "Yes"), (CAT, "no", "No")]), answer_sample(22, [(DOG, "no", "Yes")])]
    for row in rows:
        for answer in row["n"]:
            del answer["predicted"], answer["parser"]
    return rows


_COCO_CAP_CHAIR = [
    {"doc_id": n, "filtered_resps": [text], "coco_cap_chair_i": {"image_id": n, "answer": words, "pred": text}}
    for n, text, words in [(11, "A dog.", ["dog"]), (22, "A cat.", ["cat"])]
]
for _row in _COCO_CAP_CHAIR:
    _row["coco_cap_chair_i"]["pred"] = ""  # type: ignore[index]  # not read: the answer is
_UPSTREAM_POPE = [
    {"doc_id": n, "filtered_resps": [text], "input": asked, "pope_accuracy": {"ground_truth": label, "prediction": ""}}
    for n, text, asked, label in [(1, "Yes", DOG, "yes"), (2, "No", CAT, "no")]
]


def _result_beside(folder: Path) -> None:
    write_result(folder, {"chair_demo": _chair_samples(), "pope_demo": _pope_samples()}, stamp="t")


def _result() -> dict[str, Any]:
    """Return what a result holds of what a comparison reads."""
    method = {"name": "pai", "alpha": 0.5}
    return {
        "configs": {
            "chair_demo": {
                "doc_to_text": "Describe.",
                "generation_kwargs": {"max_new_tokens": 512},
                "process_docs": {"image_list_sha256": "abc", "analyser": "lexicon"},
            },
            "pope_demo": {
                "doc_to_text": "Ask.",
                "generation_kwargs": {"max_new_tokens": 16},
                "process_docs": {"image_list_sha256": "abc", "parser": "official"},
            },
        },
        "versions": {"chair_demo": 2.5, "pope_demo": 1.5},
        "n-samples": {"chair_demo": {"effective": 2}, "pope_demo": {"effective": 2}},
        "lmms_fixattn": {"method": method, "conversation": "default", "dtype": "float32"},
        "date": "t",
        "throughput": {"total_elapsed_time": 8.0, "avg_latency": 2.0, "total_gen_tokens": 31},
    }


def _all_of_coco(path: Path) -> object:
    folder = CocoFolder(path.parent.parent)
    ids = [image_id for split in folder.splits for image_id in folder.image_ids(split)]
    return (
        ids, sorted(folder.instances()), list(folder.captions()), folder.sizes(ids), folder.file_names(ids),
        folder.scorable(folder.splits[0]), [folder.image_id(name) for name in ("11.jpg", "b/22.jpg")],
    )  # fmt: skip


def _coco(folder: Path) -> None:
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "instances_val2014.json").write_text(json.dumps(_INSTANCES))
    (folder / "annotations" / "captions_val2014.json").write_text(json.dumps(_REFERENCE_CAPTIONS))


def _statistics(folder: Path) -> dict[str, Any]:
    """Write statistics of a model of two layers of three heads, and return their record."""
    model = TextModel(family="llama", hidden_size=12, layers=2, heads=3, key_heads=1)
    weights = torch.linspace(0.1, 0.6, 6).reshape(2, 3)
    AttentionStatistics(weights, weights / 2, model, {"images": 5}).save(folder / "spoiled.safetensors")
    record: dict[str, Any] = json.loads((folder / "spoiled.json").read_text())
    return record


def _written_record() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return as_json(_statistics(Path(folder)))


def _read_statistics(path: Path) -> object:
    statistics, digest = AttentionStatistics.read(path.with_suffix(".safetensors"))
    return statistics.true.tolist(), statistics.hallucinated.tolist(), statistics.text_model, statistics.about, digest


_ANSWER = {"text": "A dog.", "terminated": True, "tokens": 3}


def _read_journal(path: Path) -> object:
    with Journal(path) as journal:
        kept = journal.recall(["a/1/x/1", "a/2/y/1"])
        answers = {index: to_json(answer) for index, answer in kept.items()}
        return len(journal), journal.spent("generate_until"), journal.budget, answers


def _picture(form: str, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((12, 9)).convert(mode).save(out, form)
    return out.getvalue()


def _read_picture(path: Path) -> object:
    return images.read_rgb(str(path)).tobytes(), images.digest(str(path))


READERS: dict[str, Reader] = {
    "indexes of released files": Reader(
        read_index,
        [
            {
                "group": "g",
                "name": name,
                "file": f"{name}.json",
                "method": method,
                "note": "as run",
                "lines": 500,
                "repository": "a/b",
                "commit": "0" * 40,
                "path": f"out/{name}.json",
                "sha256": "1" * 64,
            }
            for name, method in (("plain", "baseline"), ("mine", "mine"))
        ],
        (as_json, as_lines),
    ),
    "captions": Reader(
        lambda path: (what_is_in(path), read_captions(path)),
        _CAPTIONS,
        (as_json, as_lines, as_table, lambda content: as_table(content, "\t")),
    ),
    "captions by file name": Reader(
        lambda path: (what_is_in(path), read_captions(path)),
        [{"image": name, "text": f"A dog, {number} times."} for number, name in _NAMED.items()],
        (as_lines, as_table),
    ),
    "AMBER's responses": Reader(
        read_captions, [{"id": 1, "response": "A dog."}, {"id": 2, "response": "A cat."}], (as_json, as_lines)
    ),
    "the reference scorer's output": Reader(
        lambda path: (read_captions(path), overall_metrics(path, ("CHAIRs", "CHAIRi"))),
        {
            "overall_metrics": {"CHAIRs": 0.5, "CHAIRi": 0.25},
            "sentences": [{"image_id": 1, "caption": "A dog."}, {"image_id": 2, "caption": "A cat."}],
        },
    ),
    "answers": Reader(
        lambda path: (what_is_in(path), read_answers(path)),
        _ANSWERS,
        (as_json, as_lines, as_table, lambda content: as_table(content, "\t")),
    ),
    "truth": Reader(
        read_ground_truth, {"11": ["cat", "dog"], "22": ["person"]}, twice_is_once=lambda path: len(path) == 2
    ),
    "question files": Reader(lambda path: read_questions([path]), _QUESTIONS, (as_lines, as_json, as_table)),
    "question files without labels": Reader(
        lambda path: read_questions([path, path.with_name("coco_pope_random.json")]),
        [
            {**row, "category": "random"}
            for row in ({key: row[key] for key in row if key != "label"} for row in _QUESTIONS)
        ],
        (as_lines,),
        prepare=lambda folder: (folder / "coco_pope_random.json").write_bytes(as_lines(_QUESTIONS)),
    ),
    "answers to question files": Reader(
        lambda path: read_answers_to(path, [path.with_name("questions.json")]),
        _JOINED,
        (as_lines, as_json),
        prepare=lambda folder: (folder / "questions.json").write_bytes(as_lines(_QUESTIONS)),
        checks=frozenset({"prompt"}),
    ),
    "POPE's questions of the task": Reader(
        lambda path: pope_questions.read(path.parent, "random", {name: n for n, name in _NAMED.items()}.get),
        _QUESTIONS,
        (as_lines, as_json),
        name="coco_pope_random.json",
    ),
    "COCO's instances": Reader(
        _all_of_coco,
        _INSTANCES,
        name="annotations/instances_val2014.json",
        prepare=_coco,
        twice_is_once=lambda path: path[0] == "annotations",
    ),
    "COCO's captions": Reader(
        _all_of_coco,
        _REFERENCE_CAPTIONS,
        name="annotations/captions_val2014.json",
        prepare=_coco,
        checks=frozenset({"images"}),
    ),
    "COCO's captions without images": Reader(
        _all_of_coco, _NO_IMAGES, name="annotations/captions_val2014.json", prepare=_coco
    ),
    "image lists": Reader(lambda path: image_lists.load(path), [310196, 42, 7007], (as_ids,), name="list.txt"),
    "results of lmms-eval": Reader(
        lambda path: read_run(str(path)),
        _result(),
        name="t_results.json",
        prepare=_result_beside,
        checks=frozenset({"n-samples"}),
        labels=frozenset({"n-samples"}),
    ),
    "samples of chair": Reader(
        lambda path: (read_run(str(path.parent)).captions, read_captions(path)),
        _chair_samples(),
        (as_lines,),
        name="t_samples_chair_demo.jsonl",
        labels=frozenset({"doc_id"}),
        prepare=_result_beside,
        twice_is_once=lambda path: path[-2:-1] == ("truth",),
    ),
    "samples of pope": Reader(
        lambda path: (read_run(str(path.parent)).answers, read_answers(path)),
        _pope_samples(),
        (as_lines,),
        name="t_samples_pope_demo.jsonl",
        labels=frozenset({"doc_id"}),
        prepare=_result_beside,
    ),
    "samples of coco_cap_chair": Reader(
        read_captions,
        _COCO_CAP_CHAIR,
        (as_lines,),
        labels=frozenset({"doc_id", "pred", "filtered_resps"}),
        checks=frozenset({"coco_cap_chair_i"}),
        twice_is_once=lambda path: path[-2:-1] == ("answer",),
    ),
    "samples of lmms-eval's pope": Reader(
        read_answers,
        _UPSTREAM_POPE,
        (as_lines,),
        labels=frozenset({"prediction", "filtered_resps", "input"}),
        checks=frozenset({"pope_accuracy"}),
    ),
    "sweep configurations": Reader(
        lambda path: read_plan(str(path)),
        {
            "model": {"pretrained": "demo", "batch_size": 4},
            "tasks": ["chair_demo", "pope_demo"],
            "limit": 5,
            "baseline": "fix",
            "layout": "table1",
            "cells": [
                {"name": "plain", "method": "vanilla", "published": {"chair_s": 50.5}},
                {"name": "fix", "method": "fixattn", "alpha": 0.5},
            ],
            "grid": [{"method": "pai", "alpha": [0.1, 0.3], "gamma": 1.2}],
        },
        (as_yaml,),
        name="spoiled.yaml",
        labels=frozenset({"method"}),
    ),
    "attention statistics": Reader(
        _read_statistics, content=_written_record(), prepare=_statistics, errors=(ValueError,)
    ),
    "journals of answers": Reader(
        _read_journal,
        content=as_lines(
            [
                {
                    "kind": "generate_until",
                    "seconds": 1.5,
                    "tokens": 7,
                    "budget": {"rows": 4, "positions": 9, "fitting": 9, "largest": 2},
                    "answers": {"a/1/x/1": {"rounds": [_ANSWER], "counts": {"input_tokens": 9, "output_tokens": 3}}},
                },
                {
                    "kind": "generate_until",
                    "seconds": 2.5,
                    "tokens": 9,
                    "budget": None,
                    "answers": {"a/2/y/1": {"rounds": [_ANSWER, _ANSWER], "counts": None}},
                },
            ]
        ),
        errors=(ValueError,),
    ),
    "indexes of weights": Reader(
        lambda path: hub.weight_files(path),
        {"weight_map": {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors"}},
        name="model.safetensors.index.json",
        checks=frozenset({"a.weight", "b.weight"}),
    ),
    **{
        f"pictures, {form} {mode}": Reader(
            _read_picture, content=_picture(form, mode), name="picture", errors=(images.PictureError,)
        )
        for form, mode in [
            ("PNG", "RGB"),
            ("PNG", "I;16"),
            ("JPEG", "RGB"),
            ("TIFF", "L"),
            ("GIF", "L"),
            ("WEBP", "RGB"),
        ]
    },
    "pictures from the host": Reader(
        lambda path: ImageCache(path.parent.parent, "http://none", True).lacking({42: (12, 9)}),
        content=_picture("JPEG"),
        name="val2014/COCO_val2014_000000000042.jpg",
    ),
}

_OWN = "a file of the package"
_WRITTEN = "written by the same process"
OWN: dict[str, str] = {
    "bench.record._processor": "the operating system's",
    "cli.methods._references": _OWN,
    "data.hub_files._sha256": "digested, not read",
    "data.known_images._load": f"{_OWN}, whose digest is checked",
    "errors._owner": "lists of installed packages",
    "harness.check.Packaged.settings": _OWN,
    "harness.check.read_recorded": _OWN,
    "harness.sweep._CellRun._save": _WRITTEN,
    "harness.sweep._read_json": "what the sweep itself wrote: its record, in one step, and results",
    "harness.sweep._prepare": "no file: a copy of a mapping",
    "report.evidence._sha256": "digested, not read",
    "inspection.command.inspect": "digested, not read; pictures are read by data.images",
    "report.html._source": _OWN,
    "report.recorded": "this package's own modules",
    "scoring.objects.coco_objects": _OWN,
    "scoring.objects.lexicon._lines": _OWN,
}
"""Functions that open files which nobody else writes, and why no reader has to go through them."""
