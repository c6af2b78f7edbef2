"""Measure how much each head looks at the answer so far where the model names an object: AdaIAT's statistics."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmms_fixattn.data import DataError, image_lists
from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.engine.generation import Decode
from lmms_fixattn.engine.intervention import intervene
from lmms_fixattn.inspection.session import Session
from lmms_fixattn.methods.base import Layers, Method
from lmms_fixattn.methods.statistics import AttentionStatistics
from lmms_fixattn.methods.views import Rows
from lmms_fixattn.scoring.chair import Analyser


@dataclass(frozen=True)
class Document:
    """A picture and the node words of what it shows."""

    image_id: int
    image: Path
    truth: frozenset[str]


def documents(folder: CocoFolder, ids: Sequence[int], analyser: Analyser) -> list[Document]:
    """Return the folder's images of these ids with their truth, as CHAIR takes it.

    Raises:
        DataError: an id or a file is not there, or an image has neither instances nor captions.
    """
    found = folder.images(ids)
    truth = folder.truth(ids, analyser)
    return [Document(image.image_id, image.path, truth[image.image_id]) for image in found]


def draw_ids(folder: CocoFolder, count: int, seed: int) -> tuple[int, ...]:
    """Draw images to calibrate on: of the training split where there is one, never of a list that ships for scoring.

    Raises:
        DataError: there are fewer.
    """
    split = next((split for split in folder.splits if split.startswith("train")), folder.splits[0])
    held_out = {image_id for name in image_lists.names() for image_id in image_lists.load(name).ids}
    pool = [image_id for image_id in folder.image_ids(split) if image_id not in held_out]
    if len(pool) < count:
        raise DataError(f"{folder.root} has {len(pool)} images of {split} that no list for scoring holds, not {count}")
    return tuple(sorted(random.Random(seed).sample(pool, count)))


def calibrate(
    session: Session,
    asked: Sequence[Document],
    question: str,
    analyser: Analyser,
    new_tokens: int = 512,
    batch_size: int = 8,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> AttentionStatistics:
    """Let the model caption images greedily, and average its attention to the answer where it names objects.

    Where a mention's first token is predicted, a head's mean weight on the tokens generated before it is taken; the
    averages are over the mentions of objects that are in the image's truth, and over those of objects that are not. An
    answer's first token is predicted at prefill, with nothing generated, and counts in neither.

    Source: AdaIAT, arXiv:2603.04908, sections on the threshold and on M; its own statistics are of 10,000 images.

    Raises:
        ValueError: all mentions are true, or none is: one of the two averages is of nothing.
    """
    text = session.encoder.family.text_model
    sums = {there: torch.zeros(text.layers, text.heads, dtype=torch.float64) for there in (True, False)}
    counts = {True: 0, False: 0}
    for batch in progress([asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]):
        rows, attention = _caption(session, [document.image for document in batch], question, new_tokens)
        for index, (document, row) in enumerate(zip(batch, rows, strict=True)):
            answer = session.runner.finish(row)
            for mention in analyser.located(answer):
                step = token_of(mention.start, row[: answer.tokens], session.encoder.decode)
                if step:
                    there = mention.object in document.truth
                    sums[there] += attention[step - 1, :, index]
                    counts[there] += 1
    for there, kind in ((True, "true"), (False, "hallucinated")):
        if not counts[there]:
            raise ValueError(
                f"none of the {sum(counts.values())} mentions in {len(asked)} captions is {kind}: statistics need both "
                "kinds, of hundreds of mentions each; take more images"
            )
    means = {there: (sums[there] / counts[there]).float() for there in sums}
    ids = "".join(f"{image_id}\n" for image_id in sorted(document.image_id for document in asked))
    about = {
        "images": len(asked),
        "image_ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        "mentions": {"true": counts[True], "hallucinated": counts[False]},
        "question": question,
        "max_new_tokens": new_tokens,
        "analyser": analyser.name,
        **session.record,
    }
    return AttentionStatistics(means[True], means[False], text, about)


def token_of(start: int, tokens: Sequence[int], decode: Decode) -> int:
    """Return which of the tokens the character at ``start`` of their text begins in or with."""
    return bisect_right(range(1, len(tokens)), start, key=lambda count: len(decode(tokens[:count])))


class _AttentionToAnswer(Method):
    """Change nothing, and note each head's mean weight on a generated token."""

    name = "attention to the answer"

    def __init__(self) -> None:
        self.steps: list[list[torch.Tensor]]
        object.__setattr__(self, "steps", [])

    @property
    def edited_layers(self) -> Layers:
        return 0, None

    def needs_row(self, prefill: bool) -> bool:
        return not prefill

    def edit_weights(self, rows: Rows, weights: torch.Tensor) -> None:
        if rows.layer == 0:
            self.steps.append([])
        self.steps[-1].append(weights[..., rows.prompt :].mean(dim=-1))


def _caption(
    session: Session, images: Sequence[Path], question: str, new_tokens: int
) -> tuple[list[list[int]], torch.Tensor]:
    """Return the generated tokens of each image, and the attention [decode steps, layers, images, heads]."""
    batch = session.encoder.batch([session.encode(str(image), [question]) for image in images])
    noting = _AttentionToAnswer()
    with intervene(session.model, noting):
        rows = session.runner.generate(batch, session.runner.greedy(batch, new_tokens))
    # Without a decode step there is no token whose attention could be asked for.
    steps = [torch.stack([layer.cpu() for layer in step]) for step in noting.steps]
    return rows, torch.stack(steps) if steps else torch.empty(0)
