"""Write runs as files and as lmms-eval's output folders, small and by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_fixattn.scoring import chair, pope

LEXICON = chair.make_analyser()


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def caption_sample(image_id: int, caption: str, truth: Sequence[str], **more: Any) -> dict[str, Any]:
    row = chair.score_caption(image_id, caption, set(truth), LEXICON, more.pop("terminated", None))
    return {"doc_id": image_id, "n": {**row, "tokens": more.pop("tokens", None)}, **more}


def answer_sample(image_id: int, questions: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    rows = [
        {
            "image_id": image_id,
            "question_id": 10 * image_id + turn,
            "turn": turn,
            "question": question,
            "label": label,
            "answer": answer,
            "predicted": pope.parse_answer(answer),
            "parser": "official",
        }
        for turn, (question, label, answer) in enumerate(questions, start=1)
    ]
    return {"doc_id": image_id, "n": rows}


def write_result(
    folder: Path, samples: Mapping[str, Sequence[Mapping[str, Any]]], stamp: str = "20260102_030405", **changes: Any
) -> Path:
    """Write results and samples of tasks as lmms-eval does; changes: method, prompt, version, images, cap, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "configs": {
            task: {
                "doc_to_text": changes.get("prompt", "Describe."),
                "generation_kwargs": {"max_new_tokens": changes.get("cap", 512)},
                "process_docs": {"image_list_sha256": changes.get("images", "abc")}
                | ({"parser": "official"} if task.startswith("pope") else {"analyser": "lexicon"}),
            }
            for task in samples
        },
        "versions": dict.fromkeys(samples, changes.get("version", 1.0)),
        "n-samples": {task: {"effective": len(rows)} for task, rows in samples.items()},
        "lmms_fixattn": {
            "method": {"name": changes.get("method", "vanilla")},
            "conversation": changes.get("conversation", "default"),
            "dtype": changes.get("dtype", "float32"),
        },
        "date": stamp,
    }
    if "throughput" in changes:
        result["throughput"] = changes["throughput"]
    (folder / f"{stamp}_results.json").write_text(json.dumps(result), encoding="utf-8")
    for task, rows in samples.items():
        write_lines(folder / f"{stamp}_samples_{task}.jsonl", rows)
    return folder
