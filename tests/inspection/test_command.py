"""The command: three files a picture, and one line for what cannot be meant."""

from __future__ import annotations

import json

import pytest

from lmms_fixattn import cli
from lmms_fixattn.inspection import command
from lmms_fixattn.methods import var
from lmms_fixattn.methods.text_model import TextModel

pytestmark = pytest.mark.system

KEYS = {
    "attention": {"by_layer", "image_share", "segments", "answer_tokens"},
    "tokens": {"sets", "measures", "patches"},
    "heads": {"sensitivity", "gains"},
    "gap": {"planes", "length", "cosine"},
    "answers": {"truth", "analyser", "conversations"},
}


@pytest.fixture
def one_load(session, monkeypatch):
    monkeypatch.setattr(command, "Session", lambda pretrained, conversation: session)


def run(*arguments):
    return cli.main(["inspect", *map(str, arguments)])


@pytest.mark.system
@pytest.mark.usefixtures("one_load")
@pytest.mark.parametrize("kind", command.PICTURES)
def test_every_picture_is_drawn_from_no_options_with_its_numbers(kind, tmp_path, capsys):
    assert run(kind, "--output", tmp_path, "--max-new-tokens", 40) == 0
    names = [f"{kind}.png", f"{kind}.svg", f"{kind}.json"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    assert (tmp_path / names[0]).read_bytes().startswith(b"\x89PNG")
    assert "<text" in (tmp_path / names[1]).read_text()
    data = json.loads((tmp_path / names[2]).read_text())
    assert KEYS[kind] <= set(data)
    assert (data["picture"], data["image"], data["pretrained"]) == (kind, "scene_121.png", "demo")
    assert all(method["name"] in ("vanilla", "fixattn") for method in data["methods"].values())
    assert "lmms-fixattn" in data["versions"]


@pytest.mark.usefixtures("one_load")
def test_vanilla_comes_first_and_methods_keep_their_order(tmp_path):
    assert run("attention", "--method", "pai,alpha=1", "fixattn", "--max-new-tokens", 3, "--output", tmp_path) == 0
    data = json.loads((tmp_path / "attention.json").read_text())
    assert list(data["image_share"]) == ["vanilla", "pai alpha=1", "fixattn"]
    assert list(data["methods"]) == ["vanilla", "pai alpha=1", "fixattn"]
    assert (len(data["image_share"]["vanilla"]), data["answer_tokens"]) == (4, 3)


@pytest.mark.usefixtures("one_load")
def test_what_was_published_for_the_model_is_in_the_record(tmp_path, monkeypatch):
    monkeypatch.setitem(var._DIMENSIONS, TextModel("llama", 128, 4, 4, 4), (6, 67))
    assert run("attention", "--method", "var,tau=1.8", "--max-new-tokens", 3, "--output", tmp_path) == 0
    assert json.loads((tmp_path / "attention.json").read_text())["methods"]["var tau=1.8"]["sink_dims"] == [6, 67]


@pytest.mark.usefixtures("one_load")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["heads", "--pretrained", "x/y"], "name the picture with --image"),
        (["heads", "--image", "nowhere.png"], "there is no picture nowhere.png"),
        (["heads", "--question", "a", "--question", "b"], "expected one --question, got 2"),
        (["tokens", "--method", "fixattn", "fixattn,alpha=1"], "draws one --method, got 2"),
        (["tokens", "--method", "pai"], "pai selects no image tokens"),
        (["heads", "--method", "fixatn"], "did you mean 'fixattn'?"),
        (["heads", "--truth", "dog"], "inspect heads has no use for --truth"),
        (["answers", "--truth", "dgo"], "did you mean 'dog'?"),
        (["gap", "--max-new-tokens", "0"], "max_new_tokens must be a number of at least 1, got 0"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_status_1(arguments, message, capsys, tmp_path):
    assert run(*arguments, "--output", tmp_path) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_not_there_is_named(tmp_path, capsys):
    assert run("heads", "--pretrained", tmp_path / "no", "--image", command.DEMO_IMAGE, "--output", tmp_path) == 1
    assert f"there is no directory {tmp_path / 'no'}" in capsys.readouterr().err
