"""The lmms-eval model on checkpoints of every further family, from their files to answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from covering import covering
from loguru import logger
from miniature_checkpoints import CHECKPOINTS
from processes import LONGEST
from shapes_task import DOCS, conversation, make, naive_answer, next_round, picture, requests
from transformers import CompileConfig

from lmms_fixattn.models import transformers_api

pytestmark = pytest.mark.system

Folder = Callable[[str], Path]
VICUNA = "llava-hf/llava-v1.6-vicuna-7b-hf"
QWEN2_5, QWEN3 = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"
METHODS = ("vanilla", "pai", "vcd", "icd", "m3id", "dola", "fixattn", "beam")
ONE_PICTURE = picture(7)
ASKED = [
    *DOCS[:4],
    *({"text": text, "pictures": [ONE_PICTURE]} for text in ("What is this?", "Is there a cat? " * 3, "And a car?")),
    {"text": "What differs?", "pictures": [ONE_PICTURE, picture(8)]},
]
"""Documents without a picture, with one, with two, and several questions on one picture."""


@pytest.fixture(autouse=True)
def error_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def settings(method: str, name: str) -> dict[str, Any]:
    """The method's settings, FixAttn's stated substitute where the tower has no class token."""
    by_prompt = method == "fixattn" and name.startswith("Qwen/")
    return {"method": method, **({"selection": "prompt"} if by_prompt else {})}


@pytest.mark.parametrize(("method", "name"), covering(METHODS, CHECKPOINTS))
def test_batches_of_any_size_give_what_transformers_processor_and_model_give_one_by_one(
    method: str, name: str, miniature: Folder
) -> None:
    lm = make(docs=ASKED, pretrained=str(miniature(name)), batch_size=4, **settings(method, name))
    results = lm.generate_until(requests(range(len(ASKED))))
    for doc, result in zip(ASKED, results, strict=True):
        counts = result.token_counts
        found = (result.text, result.text.terminated, counts.input_tokens, counts.output_tokens)
        assert found == naive_answer(lm, doc, do_sample=False)
    assert len({result.text for result in results}) > len(ASKED) // 2
    for size in (1, "auto"):
        lm.batch_size = size
        assert lm.generate_until(requests(range(len(ASKED)))) == results


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_result_says_what_is_reused_and_the_log_what_is_not(name: str, miniature: Folder) -> None:
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    try:
        lm = make(docs=ASKED, pretrained=str(miniature(name)), method="pai")
    finally:
        logger.remove(sink)
    lm.generate_until(requests(range(4, 7)))
    (line,) = [line for line in said if " anew; " in line]
    prefixes = name != QWEN3
    assert lm.record()["reuse"] == {"pictures": False, "prefixes": prefixes}
    assert ("encodes its picture anew" in line) == prefixes
    assert ("encodes its picture and computes its prompt's prefix anew" in line) == (not prefixes)
    assert lm.counts == {
        "images_asked": 3, "images_encoded": 3, "image_prompts_asked": 3,
        "image_prompts_computed": 1 if prefixes else 3,
    }  # fmt: skip
    assert "reuse" not in lm.identity()


@pytest.mark.parametrize(("method", "name"), covering(["vanilla", "pai", "fixattn"], CHECKPOINTS))
def test_each_round_of_a_conversation_reads_the_answers_before_it(method: str, name: str, miniature: Folder) -> None:
    lm = make(pretrained=str(miniature(name)), batch_size=3, **settings(method, name))
    results = lm.generate_until_multi_round(requests(range(4), write=next_round))
    assert {len(answers) for answers in results} == {1, 2, 3}
    for doc, answers in zip(DOCS, results, strict=False):
        for index, answer in enumerate(answers):
            alone = lm.generate_until(requests([0], lambda _, d=doc, said=answers[:index]: conversation(d, said)))
            assert (alone[0].text, alone[0].text.terminated) == (answer, answer.terminated)


@pytest.mark.system
@pytest.mark.parametrize(("method", "name"), covering(["pai", "vcd", "dola", "fixattn"], CHECKPOINTS))
def test_traced_steps_on_a_cache_of_fixed_size_give_the_same_answers(
    method: str, name: str, miniature: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make(docs=ASKED, pretrained=str(miniature(name)), batch_size=4, **settings(method, name))
    expected = plain.generate_until(requests(range(len(ASKED))))
    fixed = make(docs=ASKED, pretrained=str(miniature(name)), batch_size=4, compile=True, **settings(method, name))
    graphs: list[Any] = []

    def as_traced(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(transformers_api, "CompileConfig", partial(CompileConfig, backend=as_traced, mode=None))
    assert fixed.generate_until(requests(range(len(ASKED)))) == expected
    torch.compiler.reset()
    assert graphs
    assert fixed.record()["compile"] is True


@pytest.mark.system
@pytest.mark.parametrize("name", [VICUNA, QWEN2_5])
def test_the_command_captions_pictures_with_a_checkpoint_of_the_family(
    name: str, miniature: Folder, tmp_path: Path
) -> None:
    arguments = f"pretrained={miniature(name)},method=pai,batch_size=2"
    command = [
        str(Path(sys.executable).with_name("lmms-eval")), "--model", "vlm_fixattn", "--model_args", arguments,
        "--tasks", "chair_demo", "--limit", "2", "--gen_kwargs", "max_new_tokens=24", "--log_samples",
        "--output_path", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=LONGEST, check=False)
    written = list(tmp_path.rglob("*_results.json"))
    assert len(written) == 1, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(written[0].read_text())
    assert result["lmms_fixattn"]["reuse"] == {"pictures": False, "prefixes": True}
    assert result["lmms_fixattn"]["method"]["name"] == "pai"
    samples = list(tmp_path.rglob("*_samples_chair_demo*.jsonl"))
    rows = [json.loads(line) for path in samples for line in path.read_text().splitlines()]
    assert len(rows) >= 2
    assert all(0 < row["token_counts"][0]["output_tokens"] <= 24 for row in rows)
