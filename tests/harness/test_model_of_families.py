"""The lmms-eval model on a checkpoint of each family: from messages to text it says what the model by hand says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import naive_methods as naive
import pytest
from miniature_checkpoints import CHECKPOINTS, write
from naive_text import Fix, generate
from shapes_task import DOCS, SPLIT, TASK, Doc, requests

from lmms_fixattn.harness.model import FixattnModel

STEPS, DOCUMENTS = 6, (0, 1, 2, 3)  # of which one has no picture, and one has two
METHODS: dict[str, tuple[dict[str, Any], Fix]] = {
    "vanilla": ({}, Fix()),
    "pai": ({"alpha": "0.7", "gamma": "1.2", "layers": "1-3"}, Fix(alpha=0.7, gamma=1.2, layers=(1, 3))),
    "vcd": ({"alpha": "1.3", "noise_step": "700", "seed": "5"}, naive.vcd(1.3, 0.1, 700, 5)),
}


@pytest.fixture(scope="module", params=CHECKPOINTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(request.param, tmp_path_factory.mktemp("checkpoint"))


def by_hand(lm: FixattnModel, doc: Doc, fix: Fix) -> str:
    """Answer one document by the processor alone and the model written out by hand."""
    processor = lm.encoder.processor
    content = [*[{"type": "image"}] * len(doc["pictures"]), {"type": "text", "text": doc["text"]}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    ids = processor(text=text, images=doc["pictures"] or None)["input_ids"][0]
    pictures = [processor.image_processor(images=[picture], return_tensors="pt") for picture in doc["pictures"]]
    tokens, *_ = generate(lm.model, list(ids), [dict(picture) for picture in pictures], fix, STEPS)
    ends = lm.model.generation_config.eos_token_id
    ended = [place for place, token in enumerate(tokens) if token in (ends if isinstance(ends, list) else [ends])]
    return str(processor.decode(tokens[: min(ended, default=STEPS)], skip_special_tokens=True))


@pytest.mark.parametrize("method", METHODS)
def test_answers_to_documents_are_those_of_the_model_by_hand(folder: Path, method: str) -> None:
    settings, fix = METHODS[method]
    lm = FixattnModel(pretrained=str(folder), device="cpu", dtype="float32", batch_size=3, method=method, **settings)
    lm.task_dict[TASK] = {SPLIT: DOCS}
    answers = lm.generate_until(requests(DOCUMENTS, max_new_tokens=STEPS))
    assert [answer.text for answer in answers] == [by_hand(lm, DOCS[doc], fix) for doc in DOCUMENTS]
    assert len({answer.text for answer in answers}) > 1
