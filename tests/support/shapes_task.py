"""The lmms-eval model on the demo checkpoint, with a task of documents that hold no, one or several pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from PIL import Image

from lmms_fixattn import intervene
from lmms_fixattn.harness.model import FixattnModel

TASK, SPLIT, CAP = "shapes", "test", 13
Doc = dict[str, Any]


def picture(seed: int) -> Image.Image:
    draw = torch.Generator().manual_seed(seed)
    tiles = torch.randint(0, 256, (5, 7, 3), generator=draw, dtype=torch.uint8)
    return Image.fromarray(tiles.numpy()).resize((91, 65), Image.Resampling.NEAREST)


def make_docs() -> list[Doc]:
    """Eleven documents with no, one, two or three pictures and texts of different lengths."""
    texts = ["Is there a dog in the image?", "Hi", "Please describe this image in detail. " * 3, "What is this? A cat?"]
    pictures = [1, 0, 2, 1, 1, 0, 3, 1, 2, 1, 1]
    return [
        {"text": texts[index % 4] + " no" * index, "pictures": [picture(10 * index + n) for n in range(count)]}
        for index, count in enumerate(pictures)
    ]


DOCS = make_docs()


def to_messages(doc: Doc) -> list[dict[str, Any]]:
    """The messages that lmms-eval builds from doc_to_visual and doc_to_text."""
    images = [{"type": "image", "url": picture} for picture in doc["pictures"]]
    return [{"role": "user", "content": [*images, {"type": "text", "text": doc["text"]}]}]


def conversation(doc: Doc, said: Sequence[str]) -> list[dict[str, Any]]:
    turns = to_messages(doc)
    for answer in said:
        turns += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And then?"}]
    return turns


def next_round(doc: Doc, round_idx: int = 0, previous_output: Any = (), previous_round_info: Any = None) -> Any:
    """A task of one to three rounds, as the document says, which writes the whole conversation each time."""
    turns = conversation(doc, previous_output)
    if round_idx == 0:
        return turns
    assert previous_round_info == (None if round_idx == 1 else round_idx - 1)
    ended = round_idx == len(doc["text"]) % 3 + 1
    return None if ended else turns, ended, previous_output, round_idx


def request(doc_id: int, *arguments: Any, kind: str = "generate_until") -> Instance:
    metadata = {"task": TASK, "doc_id": doc_id, "repeats": 1}
    return Instance(kind, (DOCS[doc_id % len(DOCS)]["text"], *arguments, doc_id, TASK, SPLIT), 0, metadata)


def requests(doc_ids: Sequence[int] = range(len(DOCS)), write: Any = to_messages, **kwargs: Any) -> list[Instance]:
    return [request(doc_id, write, {"max_new_tokens": CAP, **kwargs}) for doc_id in doc_ids]


def make(cls: type[FixattnModel] = FixattnModel, docs: Sequence[Doc] = tuple(DOCS), **arguments: Any) -> FixattnModel:
    lm = cls(device="cpu", **{"pretrained": "demo", "batch_size": 8, **arguments})
    lm.task_dict[TASK] = {SPLIT: docs}
    return lm


def naive_answer(lm: FixattnModel, doc: Doc, **kwargs: Any) -> tuple[str, bool, int, int]:
    """Answer one document alone with transformers' own processor: text, whether it ended, tokens read and written."""
    content = [*[{"type": "image"}] * len(doc["pictures"]), {"type": "text", "text": lm.method.ask(doc["text"])}]
    processor = lm.encoder.processor
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=prompt, images=doc["pictures"] or None, return_tensors="pt")
    with torch.inference_mode(), intervene(lm.model, lm.method, lm.tokenizer):
        row = lm.model.generate(**inputs, max_new_tokens=CAP, **kwargs)[0, inputs["input_ids"].shape[1] :]
    text = processor.decode(row, skip_special_tokens=True)
    ends = lm.model.generation_config.eos_token_id
    return text, int(row[-1]) in (ends if isinstance(ends, list) else [ends]), inputs["input_ids"].shape[1], len(row)
