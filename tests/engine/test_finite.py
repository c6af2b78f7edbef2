"""Logits that are no numbers end a run, which says whose answer it was and where they began."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import torch
from covering import covering
from fitted_methods import fitted
from shapes_task import make, requests
from tiny_llava import WordTokenizer, batch, build_llava, make_prompt
from transformers import CompileConfig

from lmms_fixattn import METHODS, intervene, make_method
from lmms_fixattn.engine import compiled_decode
from lmms_fixattn.engine.finite import FiniteScores, NotFiniteError, NoTokenError
from lmms_fixattn.harness.requests import DocumentError, Request
from lmms_fixattn.models import transformers_api

NAN, INF = float("nan"), float("inf")
STEPS = 6


def answer(model: Any, method: Any, **settings: Any) -> Any:
    inputs = batch([make_prompt(seed=3), make_prompt(seed=4), make_prompt(seed=5)])
    if model.dtype != torch.float32:
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    with intervene(model, method, WordTokenizer()):
        settings = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, **settings}
        settings = {key: value for key, value in settings.items() if key not in method.generation}
        return model.generate(**inputs, **settings)


def broken(place: str, value: float = NAN) -> Any:
    """A tiny LLaVA with one number in a weight that is none."""
    model = build_llava()
    with torch.no_grad():
        model.get_parameter(place)[0].fill_(value)
    return model


TEXT = "model.language_model"


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (f"{TEXT}.layers.3.mlp.down_proj.weight", NAN, r"NaN in the MLP of layer 3, reading the prompt "
         r"\(its weight down_proj.weight holds NaN\)"),
        (f"{TEXT}.layers.2.self_attn.v_proj.weight", INF, r"(NaN|infinity) in the attention of layer 2, reading"),
        (f"{TEXT}.layers.0.input_layernorm.weight", NAN, r"NaN in the norm before the attention of layer 0, reading"),
        (f"{TEXT}.norm.weight", NAN, r"NaN in the norm behind the last layer, reading"),
        ("lm_head.weight", NAN, r"NaN in the logits, reading the prompt \(its weight weight holds NaN\)"),
        ("model.multi_modal_projector.linear_1.weight", NAN, r"NaN in the projection of the image's features"),
        ("model.vision_tower.encoder.layers.1.mlp.fc1.weight", NAN, r"NaN in layer 1 of the vision tower"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["vanilla", "fixattn", "spin", "deco"])
def test_a_weight_that_is_no_number_is_found_by_its_layer(name: str, place: str, value: float, said: str) -> None:
    model = broken(place, value)
    with pytest.raises(
        NotFiniteError, match=rf"^{name}: no number to choose token 1 of the answer by: {said}"
    ) as caught:
        answer(model, fitted(name))
    told = "the unmodified model is not finite there either" in str(caught.value)
    assert told != ("its weight" in str(caught.value))
    assert str(caught.value).endswith("get the checkpoint again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "settings"), covering(METHODS, [{}, {"do_sample": True}, {"num_beams": 3}]))
def test_no_method_answers_from_such_logits(name: str, settings: dict[str, Any]) -> None:
    method = fitted(name)
    model = broken(f"{TEXT}.layers.3.mlp.down_proj.weight")
    with pytest.raises(NotFiniteError, match=r"NaN in the MLP of layer 3"):
        answer(model, method, **settings)


def test_the_layer_the_token_the_prompt_and_the_method_are_found_where_an_amplification_overflows() -> None:
    model = build_llava()
    method = make_method("pai", alpha=3e38, gamma=1, layers="3-4")
    with pytest.raises(
        NotFiniteError, match=r"pai: .* NaN in the attention of layer 3, reading the prompt; "
    ) as caught:
        answer(model, method)
    assert str(caught.value).endswith("the unmodified model is finite there: lower the method's strength")
    with pytest.raises(NotFiniteError, match=r"token 2 of the answer by: NaN in the attention of layer 3, token 2 of"):
        answer(model, make_method("iat", alpha=3e38, layers="3-4"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_overflow_in_half_precision_names_the_wider_type(dtype: torch.dtype) -> None:
    model = build_llava().to(dtype)
    assert answer(model, make_method("fixattn")).shape[1] > STEPS
    with pytest.raises(NotFiniteError, match=r"fixattn: .*NaN in the attention of layer 2, .*dtype=float32$"):
        answer(model, make_method("fixattn", alpha=3e38, gamma=1, released_first_token=False))
    with torch.no_grad():
        model.get_parameter(f"{TEXT}.layers.1.mlp.down_proj.weight").mul_(1e38 if dtype == torch.bfloat16 else 1e4)
        model.get_parameter(f"{TEXT}.layers.1.mlp.up_proj.weight").mul_(1e3)
    with pytest.raises(
        NotFiniteError,
        match=r"in the MLP of layer 1, reading .* not finite there either: .*overflow \w*",
    ):
        answer(model, make_method("vanilla"))


def test_only_one_prompt_of_a_batch_is_to_blame() -> None:
    model = build_llava()
    inputs = batch([make_prompt(seed=3), make_prompt(seed=4), make_prompt(seed=5)])
    inputs["pixel_values"][1, 0, 0, 0] = NAN
    method = make_method("fixattn")
    with intervene(model, method), pytest.raises(NotFiniteError, match="the vision tower") as caught:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert caught.value.prompt == 1
    with intervene(model, method), pytest.raises(NotFiniteError) as caught:
        model.generate(**inputs, max_new_tokens=3, do_sample=False, num_beams=2)
    assert caught.value.prompt == 1


def test_what_a_contrast_makes_of_finite_logits_is_told_from_layers() -> None:
    model = build_llava()
    with pytest.raises(NotFiniteError, match=r"all layers are finite, and what vcd made of the logits is not; lower"):
        answer(model, make_method("vcd", alpha=1e38 * 3))


def test_the_branch_is_named_where_it_begins_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_llava()
    attention = model.model.language_model.layers[2].self_attn
    own = attention.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        output, weights = own(*args, **kwargs)
        if output.shape[:2] == (6, 1):  # a step, the branch's rows behind the answers'
            output[4] = NAN
        return output, weights

    monkeypatch.setattr(attention, "forward", forward)
    with pytest.raises(
        NotFiniteError, match="NaN in the attention of layer 2 of the contrastive branch, token 2"
    ) as caught:
        answer(model, make_method("m3id"))
    assert caught.value.prompt == 1


def test_the_block_is_as_before_after_such_an_error() -> None:
    model = build_llava()
    method = make_method("fixattn")

    def hooks() -> int:
        return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())

    expected = answer(model, method).tolist()
    before = hooks()
    inputs = batch([make_prompt(seed=3), make_prompt(seed=4), make_prompt(seed=5)])
    bad = {**inputs, "pixel_values": inputs["pixel_values"] * NAN}
    settings = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False}
    with intervene(model, method):
        with pytest.raises(NotFiniteError):
            model.generate(**bad, **settings)
        assert model.generate(**inputs, **settings).tolist() == expected
    assert "generate" not in vars(model)
    assert hooks() == before


def test_rows_that_have_ended_are_nobodys_answer() -> None:
    look = FiniteScores(lambda: [2])
    ids = torch.tensor([[5, 6], [5, 6]])
    fine = torch.tensor([[0.0, -INF, 1.0], [1.0, 2.0, 3.0]])
    assert look(ids, fine) is fine
    ids = torch.tensor([[5, 6, 2], [5, 6, 7]])
    scores = torch.tensor([[NAN, 0.0, 1.0], [1.0, 2.0, 3.0]])
    assert look(ids, scores)[1].tolist() == [1.0, 2.0, 3.0]
    for bad in ([NAN, 0.0, 1.0], [INF, 0.0, 1.0], [-INF, -INF, -INF]):
        with pytest.raises(NoTokenError) as caught:
            look(ids, torch.tensor([[0.0, 0.0, 1.0], bad]))
        assert caught.value.rows.tolist() == [False, True]


class TestUnderLmmsEval:
    def make(self, monkeypatch: pytest.MonkeyPatch, place: str, **settings: Any) -> Any:
        lm = make(**settings)
        with torch.no_grad():
            lm.model.get_parameter(place)[0].fill_(NAN)
        return lm

    @pytest.mark.parametrize("settings", [{}, {"compile": True}, {"batch_size": 1}])
    def test_the_one_line_names_document_layer_and_method(
        self, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.compiler.reset()
        monkeypatch.setattr(transformers_api, "CompileConfig", partial(CompileConfig, backend="eager", mode=None))
        lm = self.make(monkeypatch, f"{TEXT}.layers.1.mlp.down_proj.weight", method="fixattn", **settings)
        with pytest.raises(DocumentError) as caught:
            lm.generate_until(requests())
        assert re.match(
            r"llava_fixattn stopped: fixattn: no number to choose token 1 of the answer by: NaN in the MLP of layer 1, "
            r"reading the prompt \(its weight down_proj.weight holds NaN\); get the checkpoint again; "
            r"at document \d+ of \S+ \(split \S+\); traceback in \S+$",
            str(caught.value),
        )
        assert len(caught.value.documents) == 1 or "and " not in str(caught.value)

    def test_the_document_is_the_one_whose_picture_does_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lm = make(method="pai")
        batch_of = lm.encoder.batch
        bad: list[str] = []

        def spoilt(encoded: Any) -> Any:
            inputs = batch_of(encoded)
            if "pixel_values" in inputs and len(encoded) > 2 and not bad:
                ends = [sum(len(one.images) for one in encoded[: row + 1]) for row in range(3)]
                inputs["pixel_values"][ends[2] - 1] = NAN
                bad.append(encoded[2].ids)
            return inputs

        monkeypatch.setattr(lm.encoder, "batch", spoilt)
        with pytest.raises(DocumentError, match="layer 0 of the vision tower") as caught:
            lm.generate_until(requests())
        told = int(re.search(r"at document (\d+) of", str(caught.value))[1])
        (prompt,) = lm._read(Request.all_of("generate_until", requests([told])))
        assert [prompt.ids] == bad

    @pytest.mark.system
    def test_compiled_steps_alone_are_told_from_the_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def backend(graph: Any, example: Any) -> Any:
            return lambda *args: tuple(one * NAN if one.is_floating_point() else one for one in graph(*args))

        torch.compiler.reset()
        monkeypatch.setattr(transformers_api, "CompileConfig", partial(CompileConfig, backend=backend, mode=None))
        said: list[str] = []
        monkeypatch.setattr(compiled_decode.logger, "warning", said.append)
        lm = make(method="vanilla", compile=True)
        answers = [answer.text for answer in lm.generate_until(requests())]
        assert answers == [answer.text for answer in make(method="vanilla").generate_until(requests())]
        assert len(said) == 1
        assert "not compiled from here on: they gave logits that are no numbers, plain steps did not" in said[0]
        torch.compiler.reset()
