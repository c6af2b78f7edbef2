"""The command `lmms-fixattn inspect`: one picture of one picture and question, as PNG and SVG, with its numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lmms_fixattn.data.coco import DEMO_SCENES
from lmms_fixattn.inspection import canvas
from lmms_fixattn.inspection.answers import Turn, converse, follow_up
from lmms_fixattn.inspection.attention import measure_attention
from lmms_fixattn.inspection.draw_answers import draw_answers
from lmms_fixattn.inspection.draw_attention import draw_attention
from lmms_fixattn.inspection.draw_gap import draw_gap
from lmms_fixattn.inspection.draw_sensitivity import draw_sensitivity
from lmms_fixattn.inspection.draw_tokens import draw_tokens
from lmms_fixattn.inspection.gap import measure_gap
from lmms_fixattn.inspection.recording import SEGMENTS
from lmms_fixattn.inspection.sensitivity import measure_sensitivity
from lmms_fixattn.inspection.session import Session, read_methods
from lmms_fixattn.inspection.tokens import measure_tokens
from lmms_fixattn.inspection.truth import read_truth, truth_beside
from lmms_fixattn.methods import Method
from lmms_fixattn.models.encoding import whole_pictures
from lmms_fixattn.scoring.chair import make_analyser

CAPTION_PROMPT = "Please help me describe the image in detail."
DEMO_IMAGE = DEMO_SCENES / "unfamiliar" / "scene_121.png"
Drawn = tuple[Figure, dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """What a picture is drawn of."""

    session: Session
    image: Path
    questions: list[str]  # none: the picture's own
    methods: dict[str, Method]
    truth: str | None
    new_tokens: int

    @property
    def question(self) -> str:
        """The one question of a picture that takes one."""
        if len(self.questions) > 1:
            raise ValueError(f"expected one --question, got {len(self.questions)}; only inspect answers takes several")
        return self.questions[0] if self.questions else CAPTION_PROMPT


def inspect(
    kind: str,
    image: Path | None,
    questions: list[str],
    methods: list[str],
    pretrained: str,
    conversation: str,
    truth: str | None,
    new_tokens: int,
    output: Path,
) -> tuple[Path, Path, Path]:
    """Draw one of PICTURES and write OUTPUT/KIND.png, .svg and .json; return their paths.

    Raises:
        ValueError: what cannot be meant, with what is expected.
        OSError: a missing or broken picture, or a folder that cannot be written.
    """
    draw, default_methods = PICTURES[kind]
    if image is None:
        if pretrained != "demo":
            raise ValueError("name the picture with --image; only pretrained=demo has one of its own")
        image = DEMO_IMAGE
    if not image.is_file():
        raise ValueError(f"there is no picture {image}")
    if truth is not None and kind != "answers":
        raise ValueError(f"inspect {kind} has no use for --truth; inspect answers has")
    chosen = read_methods(methods or default_methods)
    if kind in _AGAINST_VANILLA and "vanilla" not in chosen:
        chosen = {**read_methods(["vanilla"]), **chosen}
    session = Session(pretrained, conversation)
    text = session.encoder.family.text_model
    chosen = {label: method.for_model(text) for label, method in chosen.items()}
    asked = Asked(session, image, questions, chosen, truth, new_tokens)
    with whole_pictures():
        figure, data = draw(asked)
    record = {
        "picture": kind,
        "image": image.name,
        "image_sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
        "methods": {label: {"name": method.name, **method.settings()} for label, method in chosen.items()},
        **session.record,
    }
    return canvas.save(figure, {**record, **data}, output, kind)


def _attention(asked: Asked) -> Drawn:
    prompt = asked.session.encode(str(asked.image), [asked.question])
    methods = asked.methods
    reply = asked.session.answer(prompt, next(iter(methods.values())), asked.new_tokens)
    shares = measure_attention(asked.session, prompt, reply.tokens, methods)
    data = {
        "question": asked.question,
        "answer": reply.text,
        "answer_tokens": len(reply.tokens),
        "segments": SEGMENTS,
        "by_layer": {share.label: canvas.rounded(share.by_layer) for share in shares},
        "image_share": {share.label: canvas.rounded(share.image) for share in shares},
    }
    return draw_attention(shares, asked.question, reply.text, len(reply.tokens)), data


def _tokens(asked: Asked) -> Drawn:
    prompt = asked.session.encode(str(asked.image), [asked.question])
    if len(asked.methods) > 1:
        raise ValueError(f"inspect tokens draws one --method, got {len(asked.methods)}")
    choice = measure_tokens(asked.session, prompt, *next(iter(asked.methods.items())))
    data = {
        "patches": next(iter(choice.sets.values())).shape,
        "sets": {name: marks.ravel().nonzero()[0].tolist() for name, marks in choice.sets.items()},
        "measures": {name: canvas.rounded(values) for name, values in choice.measures.items()},
    }
    return draw_tokens(choice), data


def _heads(asked: Asked) -> Drawn:
    prompt = asked.session.encode(str(asked.image), [asked.question])
    heads = measure_sensitivity(asked.session, prompt, asked.methods)
    data = {
        "question": asked.question,
        "sensitivity": {head.label: canvas.rounded(head.sensitivity) for head in heads},
        "gains": {head.label: canvas.rounded(head.gains) for head in heads},
    }
    return draw_sensitivity(heads, asked.question), data


def _gap(asked: Asked) -> Drawn:
    prompt = asked.session.encode(str(asked.image), [asked.question])
    if len(asked.methods) > 1:
        raise ValueError(f"inspect gap draws one --method's answer, got {len(asked.methods)}")
    reply = asked.session.answer(prompt, next(iter(asked.methods.values())), asked.new_tokens)
    gap = measure_gap(asked.session, prompt, reply.tokens)
    planes = {
        name: {key: canvas.rounded(value) if isinstance(value, np.ndarray) else value for key, value in plane.items()}
        for name, plane in (("embedded", vars(gap.embedded)), ("directions", vars(gap.directions)))
    }
    data = {
        "question": asked.question,
        "answer": reply.text,
        "length": gap.length,
        "cosine": gap.cosine,
        "planes": planes,
    }
    return draw_gap(gap, asked.question, reply.text), data


def _answers(asked: Asked) -> Drawn:
    analyser = make_analyser()
    truth = truth_beside(asked.image, analyser) if asked.truth is None else read_truth(asked.truth)
    methods = asked.methods
    questions = asked.questions
    if not questions:
        prompt = asked.session.encode(str(asked.image), [CAPTION_PROMPT])
        caption = asked.session.answer(prompt, next(iter(methods.values())), asked.new_tokens)
        questions = [CAPTION_PROMPT, *follow_up(caption.text, truth, analyser)]
    found = converse(asked.session, str(asked.image), questions, methods, truth, analyser, asked.new_tokens)
    picture = asked.session.picture(asked.session.encode(str(asked.image), questions[:1]))
    data = {
        "truth": sorted(truth),
        "analyser": analyser.name,
        "conversations": {
            conversation.label: [_written(turn) for turn in conversation.turns] for conversation in found
        },
    }
    return draw_answers(found, picture, truth), data


def _written(turn: Turn) -> dict[str, Any]:
    segments = [segment._asdict() for segment in turn.answer]
    return {"question": turn.question, "answer": turn.text, "terminated": turn.terminated, "segments": segments}


PICTURES: dict[str, tuple[Callable[[Asked], Drawn], list[str]]] = {
    "attention": (_attention, ["fixattn"]),
    "tokens": (_tokens, ["fixattn,spatial_ratio=0.05"]),
    "heads": (_heads, ["fixattn,head_modulation=proportional"]),
    "gap": (_gap, ["vanilla"]),
    "answers": (_answers, ["fixattn"]),
}
"""The pictures by name: how each is drawn, and the methods that it shows unless others are named."""
_AGAINST_VANILLA = ("attention", "answers")
