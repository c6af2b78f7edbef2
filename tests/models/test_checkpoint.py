"""Which checkpoint is meant, whether it is a LLaVA, and whether it is whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from lmms_fixattn.models.checkpoint import DEMO, Checkpoint

CPU = torch.device("cpu")
HEAD = "language_model.lm_head.weight"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the demo that a test may damage."""
    return Path(shutil.copytree(DEMO, tmp_path / "copy"))


def edit(folder: Path, file: str, **changes: Any) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))


def load(place: Path | str) -> Any:
    return Checkpoint.find(str(place), "main").load_model(torch.float32, CPU, "", None)


def test_demo_is_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert Checkpoint.find("demo", "main").place == str(DEMO)


def test_directory_wins_over_a_hub_id_of_its_name(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)
    (copy.parent / "llava-hf").mkdir()
    copy.rename(copy.parent / "llava-hf" / "tiny")
    found = Checkpoint.find("llava-hf/tiny", "main")
    assert found.place == str(copy.parent / "llava-hf" / "tiny")
    assert found.revision is None


def test_loaded_weights_are_the_files(copy: Path) -> None:
    model = load(copy)
    assert not model.training
    head = load_file(copy / "model.safetensors")[HEAD]
    torch.testing.assert_close(model.lm_head.weight, head.float())


def test_revision_of_a_directory_raises_instead_of_counting_for_nothing() -> None:
    with pytest.raises(ValueError, match=r"revision=v2: the local directory .* has no revisions"):
        Checkpoint.find("demo", "v2")


@pytest.mark.parametrize("place", ["./nowhere", "/nowhere/at/all", "~/nowhere"])
def test_path_without_a_directory_raises(place: str) -> None:
    with pytest.raises(ValueError, match=f"pretrained={place}: there is no directory"):
        Checkpoint.find(place, "main")


def test_hub_id_out_of_reach_raises_one_line() -> None:
    with pytest.raises(
        ValueError, match=r"no configuration could be read from no/such .*llava-hf/llava-1.5-7b-hf"
    ) as info:
        Checkpoint.find("no/such", "main")
    assert "\n" not in str(info.value)


def test_other_models_are_refused(copy: Path) -> None:
    edit(copy, "config.json", model_type="llama")
    with pytest.raises(ValueError, match=r"is a llama model; expected a checkpoint .* of LLaVA-1.5, such as llava-hf"):
        Checkpoint.find(str(copy), "main")


def test_other_vision_towers_are_refused(copy: Path) -> None:
    edit(copy, "config.json", vision_config={"model_type": "siglip_vision_model"})
    with pytest.raises(ValueError, match="has a siglip_vision_model vision tower, not CLIP's; expected"):
        Checkpoint.find(str(copy), "main")


def test_missing_weights_are_not_replaced_by_random_ones(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights[HEAD]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the model's weights, such as lm_head.weight"):
        load(copy)


def test_pickled_weights_are_not_read(copy: Path) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no weights \(safetensors\) could be read"):
        load(copy)


def test_code_in_a_checkpoint_is_not_run(copy: Path, tmp_path: Path) -> None:
    edit(copy, "config.json", model_type="unheard_of", auto_map={"AutoConfig": "code.Config"})
    (copy / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    with pytest.raises(ValueError, match="no configuration could be read"):
        Checkpoint.find(str(copy), "main")
    assert not (tmp_path / "ran").exists()


def test_sampling_defaults_of_a_checkpoint_do_not_reach_generation(copy: Path) -> None:
    edit(copy, "generation_config.json", temperature=0.9, top_p=0.6, do_sample=True)
    settings = load(copy).generation_config
    assert (settings.temperature, settings.top_p, settings.do_sample) == (None, None, None)
    assert settings.eos_token_id == LlavaForConditionalGeneration.from_pretrained(DEMO).generation_config.eos_token_id


def test_another_chat_template_has_another_fingerprint(copy: Path) -> None:
    before = Checkpoint.find(str(copy), "main").fingerprint
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert Checkpoint.find(str(copy), "main").fingerprint != before


def test_other_weights_have_another_fingerprint(copy: Path) -> None:
    before = Checkpoint.find(str(copy), "main").fingerprint
    assert Checkpoint.find(str(copy), "main").fingerprint == before
    os.utime(copy / "model.safetensors", ns=(1, 1))
    assert Checkpoint.find(str(copy), "main").fingerprint != before


def test_tokenizer_without_padding_pads_with_the_end_token(copy: Path) -> None:
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Checkpoint.find(str(copy), "main").load_processor().tokenizer
    assert (tokenizer.pad_token, tokenizer.padding_side) == (tokenizer.eos_token, "left")


@pytest.mark.parametrize(("bits", "flag"), [(4, "load_in_4bit"), (8, "load_in_8bit")])
def test_fewer_bits_are_left_to_transformers(bits: int, flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class StoppedError(Exception):
        pass

    def load(place: str, **kwargs: Any) -> None:
        given.update(kwargs)
        raise StoppedError

    monkeypatch.setattr("lmms_fixattn.models.llava.LlavaForConditionalGeneration.from_pretrained", load)
    with pytest.raises(StoppedError):
        Checkpoint.find("demo", "main").load_model(torch.float16, torch.device("cpu"), "", None, bits)
    assert getattr(given["quantization_config"], flag) is True
    assert given["device_map"] == {"": torch.device("cpu")}
    if bits == 4:
        assert given["quantization_config"].bnb_4bit_compute_dtype is torch.float16
