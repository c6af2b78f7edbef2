"""AdaIAT's statistics against one eager forward pass an answer, and what the command says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from coco_folders import write_coco

from lmms_fixattn import cli, make_method
from lmms_fixattn.data import DataError, image_lists
from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.inspection.calibration import Document, calibrate, documents, draw_ids, token_of
from lmms_fixattn.inspection.session import Session
from lmms_fixattn.methods.statistics import AttentionStatistics
from lmms_fixattn.methods.text_model import TextModel
from lmms_fixattn.methods.vanilla import Vanilla
from lmms_fixattn.models.checkpoint import DEMO
from lmms_fixattn.scoring.chair import make_analyser

pytestmark = pytest.mark.system

QUESTION = "Please help me describe the image in detail."
ANALYSER = make_analyser()


@pytest.fixture(scope="module")
def session():
    return Session("demo")


@pytest.fixture(scope="module")
def scenes():
    """Seven scenes of the demo model; it hallucinates in some of the unfamiliar ones."""
    return documents(CocoFolder(DEMO.parent / "scenes"), [3, 121, 124, 125, 130, 137, 150], ANALYSER)


def naive(session, document):
    """Mean weights on the tokens before each mention, by layer and head, from one pass over prompt and answer."""
    prompt = session.encode(str(document.image), [QUESTION])
    tokens = list(session.answer(prompt, Vanilla(), 512).tokens)
    model = session.model
    before = model.config.text_config._attn_implementation
    model.set_attn_implementation({"text_config": "eager"})
    with torch.no_grad():
        ids = torch.tensor([prompt.ids + tokens])
        attentions = model(input_ids=ids, **prompt.images[0], output_attentions=True).attentions
    model.set_attn_implementation({"text_config": before})
    found = []
    for mention in ANALYSER.located(session.encoder.decode(tokens)):
        position = next(i for i in range(len(tokens)) if len(session.encoder.decode(tokens[: i + 1])) > mention.start)
        if position:
            row, start = len(prompt.ids) + position - 1, len(prompt.ids)
            means = torch.stack([layer[0, :, row, start : row + 1].double().mean(dim=-1) for layer in attentions])
            found.append((mention.object in document.truth, means))
    return found


def test_the_averages_are_those_of_single_eager_passes(session, scenes):
    found = [mention for document in scenes for mention in naive(session, document)]
    statistics = calibrate(session, scenes, QUESTION, ANALYSER, batch_size=3)
    for there, measured in ((True, statistics.true), (False, statistics.hallucinated)):
        expected = torch.stack([means for is_there, means in found if is_there is there]).mean(dim=0)
        torch.testing.assert_close(measured.double(), expected, atol=1e-6, rtol=1e-4)
    counts = [is_there for is_there, _ in found]
    assert statistics.about["mentions"] == {"true": counts.count(True), "hallucinated": counts.count(False)}
    assert min(statistics.about["mentions"].values()) > 1
    assert statistics.text_model == TextModel.of(session.model.config.text_config)


def test_averages_of_nothing_are_refused(session, scenes):
    blind = [Document(document.image_id, document.image, frozenset()) for document in scenes[:1]]
    with pytest.raises(ValueError, match=r"none of the \d+ mentions in 1 captions is true: statistics need both"):
        calibrate(session, blind, QUESTION, ANALYSER)


def test_a_mention_belongs_to_the_token_that_its_first_letter_is_in():
    pieces = ["A", " hot", " ", "dog", "gy", "."]

    def decode(tokens):
        return "".join(pieces[token] for token in tokens)

    text = decode(range(6))
    for start, letter in enumerate(text):
        token = token_of(start, range(6), decode)
        before = len(decode(range(token)))
        assert letter in pieces[token]
        assert before <= start < before + len(pieces[token])


def test_images_for_scoring_are_never_drawn(tmp_path):
    scored = image_lists.load("pope_coco").ids[:3]
    objects = {image_id: ["dog"] for image_id in (*scored, 1, 2)}
    folder = CocoFolder(write_coco(tmp_path, objects, {image_id: ["A dog."] for image_id in objects}))
    assert draw_ids(folder, 2, seed=0) == (1, 2)
    with pytest.raises(DataError, match=r"has 2 images of val2014 that no list for scoring holds, not 3"):
        draw_ids(folder, 3, seed=0)
    write_coco(tmp_path, {7: ["cat"], 8: ["cat"], 9: []}, {7: ["A cat."], 8: []}, split="train2014")
    assert set(draw_ids(CocoFolder(tmp_path), 3, seed=0)) == {7, 8, 9}
    assert documents(CocoFolder(tmp_path), [7, 1], ANALYSER)[0].truth == {"cat"}
    with pytest.raises(DataError, match=r"1 of 2 images have neither instances nor captions .*, the first is 9"):
        documents(CocoFolder(tmp_path), [7, 9], ANALYSER)


def test_the_command_writes_statistics_that_the_method_takes(tmp_path, capsys, session):
    output, chosen = tmp_path / "demo.safetensors", tmp_path / "ids.txt"
    chosen.write_text("".join(f"{image_id}\n" for image_id in range(121, 131)))
    assert cli.main(["calibrate", "adaiat", "--demo", "--image-list", str(chosen), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    statistics, digest = AttentionStatistics.read(output)
    assert f"{output}  sha256 {digest}\n10 captions, " in printed
    assert f"method=adaiat,statistics={output}" in printed
    assert json.loads(output.with_suffix(".json").read_text())["question"] == QUESTION
    method = make_method("adaiat", statistics=str(output)).for_model(statistics.text_model)
    assert method.digest == digest
    again = ["calibrate", "adaiat", "--demo", "--output", str(output)]
    assert cli.main(again) == 1
    assert "exists; choose another name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--demo", "--output", "x.pt"], r"a name that ends in .safetensors, got x.pt"),
        (["--demo", "--pretrained", "y", "--output", "x.safetensors"], "--demo is of the packaged model"),
        (["--coco", "nowhere", "--output", "x.safetensors"], "COCO folder nowhere does not exist"),
        (["--demo", "--images", "900", "--output", "x.safetensors"], "images of familiar that no list for scoring"),
    ],
)
def test_what_cannot_be_done_is_refused_with_one_line(arguments, message, capsys):
    assert cli.main(["calibrate", "adaiat", *arguments]) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not Path("x.safetensors").exists()
