"""Pictures and statistics of models of the further families, from checkpoints' files."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from covering import covering
from miniature_checkpoints import CHECKPOINTS

from lmms_fixattn import cli
from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.inspection import command
from lmms_fixattn.inspection.calibration import calibrate, documents
from lmms_fixattn.inspection.session import Session
from lmms_fixattn.methods.statistics import AttentionStatistics
from lmms_fixattn.methods.vanilla import Vanilla
from lmms_fixattn.models.checkpoint import DEMO
from lmms_fixattn.scoring.chair import make_analyser

pytestmark = pytest.mark.system

VICUNA, MISTRAL = "llava-hf/llava-v1.6-vicuna-7b-hf", "llava-hf/llava-v1.6-mistral-7b-hf"
QWEN2_5, QWEN3 = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"
QUESTION = "What is shown in this image?"
KINDS = ("attention", "heads", "answers", "gap")


@pytest.fixture(scope="module")
def loaded(miniature: Any) -> Any:
    sessions: dict[str, Session] = {}

    def session(name: str) -> Session:
        if name not in sessions:
            sessions[name] = Session(str(miniature(name)))
        return sessions[name]

    return session


def draw(kind: str, name: str, loaded: Any, monkeypatch: Any, output: Any, *more: str) -> int:
    monkeypatch.setattr(command, "Session", lambda pretrained, conversation: loaded(name))
    image = ["--image", str(command.DEMO_IMAGE), "--max-new-tokens", "5", "--output", str(output)]
    return cli.main(["inspect", kind, "--pretrained", name, *image, *more])


@pytest.mark.parametrize(("kind", "name"), covering(KINDS, CHECKPOINTS))
def test_pictures_are_drawn_with_their_numbers(
    kind: str, name: str, loaded: Any, monkeypatch: Any, tmp_path: Any
) -> None:
    assert draw(kind, name, loaded, monkeypatch, tmp_path, "--method", "pai,alpha=0.7") == 0
    assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    data, text = json.loads((tmp_path / f"{kind}.json").read_text()), loaded(name).encoder.family.text_model
    if kind == "attention":
        shares = torch.tensor(list(data["image_share"].values()))
        assert shares.shape == (2, text.layers, text.heads)
        assert (shares[1, 2:].mean(-1) > shares[0, 2:].mean(-1)).all()  # the layers that are edited
        torch.testing.assert_close(torch.tensor(list(data["by_layer"].values())).sum(-1), torch.ones(2, text.layers))
    if kind == "heads":
        assert torch.tensor(list(data["sensitivity"].values())).shape == (1, text.layers, text.heads)
    if kind == "answers":
        turns = data["conversations"]["pai alpha=0.7"]
        assert [turn["question"] for turn in turns][:1] == [command.CAPTION_PROMPT]
        assert all(turn["answer"] for turn in turns)
    if kind == "gap":
        prompt = loaded(name).encode(str(command.DEMO_IMAGE), [command.CAPTION_PROMPT])
        tokens = prompt.ids.count(loaded(name).encoder.family.image_token_id)
        assert len(data["planes"]["embedded"]["image"]) == tokens


@pytest.mark.parametrize("name", [VICUNA, MISTRAL])
def test_tokens_of_the_whole_image_are_drawn_where_the_tower_has_a_class_token(
    name: str, loaded: Any, monkeypatch: Any, tmp_path: Any
) -> None:
    assert draw("tokens", name, loaded, monkeypatch, tmp_path) == 0
    data = json.loads((tmp_path / "tokens.json").read_text())
    assert data["patches"] == [3, 3]
    assert {name: len(places) for name, places in data["sets"].items()}["local"] == 2  # a quarter of 9


@pytest.mark.parametrize("name", [QWEN2_5, QWEN3])
@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("fixattn", "its tower has no class token"),
        ("fixattn,selection=prompt", "selects image tokens in each layer of the text model, not in the tower"),
    ],
)
def test_tokens_that_no_tower_selects_are_one_line(
    name: str, method: str, message: str, loaded: Any, monkeypatch: Any, tmp_path: Any, capsys: Any
) -> None:
    assert draw("tokens", name, loaded, monkeypatch, tmp_path, "--method", method) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0


def letters(answer: str) -> list[Any]:
    """Mention an object at every third character: random models name none."""
    return [SimpleNamespace(start=start, object="ab"[start % 2]) for start in range(0, len(answer), 3)]


def naive(session: Session, document: Any) -> list[tuple[bool, torch.Tensor]]:
    """Mean weights on the tokens before each mention, by layer and head, from one eager pass over prompt and answer."""
    prompt = session.encode(str(document.image), [QUESTION])
    tokens = list(session.answer(prompt, Vanilla(), 9).tokens)
    model = session.model
    before = model.config.text_config._attn_implementation
    model.set_attn_implementation({"text_config": "eager"})
    with torch.no_grad():
        inputs = session.encoder.batch([dataclasses.replace(prompt, ids=prompt.ids + tokens)])
        attentions = model(**inputs, output_attentions=True).attentions
    model.set_attn_implementation({"text_config": before})
    found = []
    for mention in letters(session.encoder.decode(tokens)):
        position = next(i for i in range(len(tokens)) if len(session.encoder.decode(tokens[: i + 1])) > mention.start)
        if position:
            row, start = len(prompt.ids) + position - 1, len(prompt.ids)
            means = torch.stack([layer[0, :, row, start : row + 1].double().mean(dim=-1) for layer in attentions])
            found.append((mention.object in document.truth, means))
    return found


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_statistics_are_those_of_single_eager_passes(name: str, loaded: Any, tmp_path: Any) -> None:
    session, analyser = loaded(name), make_analyser()
    scenes = documents(CocoFolder(DEMO.parent / "scenes"), [3, 121, 124], analyser)
    scenes = [dataclasses.replace(scene, truth=frozenset("a")) for scene in scenes]
    found = [mention for scene in scenes for mention in naive(session, scene)]
    marking: Any = SimpleNamespace(name="letters", located=letters)
    statistics = calibrate(session, scenes, QUESTION, marking, new_tokens=9, batch_size=2)
    for there, measured in ((True, statistics.true), (False, statistics.hallucinated)):
        expected = torch.stack([means for is_there, means in found if is_there is there]).mean(dim=0)
        torch.testing.assert_close(measured.double(), expected, atol=1e-5, rtol=1e-3)
    statistics.save(tmp_path / "of.safetensors")
    read, _ = AttentionStatistics.read(tmp_path / "of.safetensors")
    assert read.text_model == session.encoder.family.text_model
    assert session.encoder.family.config.model_type == read.text_model.within
