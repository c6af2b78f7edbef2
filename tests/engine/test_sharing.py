"""One model in several hands: blocks in blocks, threads, streamers, and one method on two models."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from processes import LONGEST
from tiny_llava import WordTokenizer, batch, build_llava, make_prompt
from transformers import TextIteratorStreamer, TextStreamer

from lmms_fixattn import intervene, make_method

pytestmark = pytest.mark.system

STEPS = 6
ACTING = ["fixattn", "spin", "vcd", "deco"]
FITTED: dict[str, dict[str, Any]] = {"deco": {"layers": "1-4"}}


def fit(name: str) -> Any:
    return make_method(name, **FITTED.get(name, {}))


def settings(**others: Any) -> dict[str, Any]:
    return {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, **others}


def answer(model: Any, seed: int = 3, **others: Any) -> list[list[int]]:
    inputs = make_prompt(seed=seed).inputs()
    tokens: list[list[int]] = model.generate(**inputs, **settings(**others))[:, inputs["input_ids"].shape[1] :].tolist()
    return tokens


def alone(model: Any, name: str, seed: int = 3) -> list[list[int]]:
    with intervene(model, fit(name), WordTokenizer()):
        return answer(model, seed)


@pytest.fixture
def model() -> Any:
    return build_llava()


def hold_in_the_second_step(model: Any) -> tuple[threading.Event, threading.Event]:
    """Let the first call in another thread wait in its second step; return what says so, and what lets it go on."""
    there, go_on = threading.Event(), threading.Event()
    passes = []

    def wait(*_: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            passes.append(1)
            if len(passes) == 2:
                there.set()
                assert go_on.wait(LONGEST)

    model.model.language_model.layers[1].register_forward_pre_hook(wait)
    return there, go_on


@pytest.mark.parametrize("name", ACTING)
def test_a_second_thread_that_asks_in_the_block_is_refused_and_the_first_answers_as_alone(
    model: Any, name: str
) -> None:
    expected = alone(model, name)
    there, go_on = hold_in_the_second_step(model)
    with ThreadPoolExecutor(1, "first") as pool, intervene(model, fit(name), WordTokenizer()):
        first = pool.submit(answer, model)
        assert there.wait(LONGEST)
        try:
            with pytest.raises(RuntimeError, match=rf"^{name}: thread first_0 is using the model.*MainThread asks"):
                answer(model, seed=4)
            with pytest.raises(RuntimeError, match="one after the other"):
                model(**make_prompt(seed=4).inputs())
        finally:
            go_on.set()
        assert first.result() == expected
        assert answer(model) == expected  # and then it is anybody's turn


@pytest.mark.parametrize("name", [*ACTING, "vanilla"])
def test_a_second_thread_that_enters_a_block_is_refused_and_the_first_is_served(model: Any, name: str) -> None:
    expected = alone(model, name)
    there, go_on = hold_in_the_second_step(model)
    with ThreadPoolExecutor(1, "first") as pool:
        first = pool.submit(alone, model, name)
        assert there.wait(LONGEST)
        try:
            with (
                pytest.raises(RuntimeError, match=rf"^pai: .* is in an intervene block with {name} of .* first_0;"),
                intervene(model, make_method("pai")),
            ):
                pass
        finally:
            go_on.set()
        assert first.result() == expected
    assert alone(model, name) == expected


def test_threads_that_take_turns_are_served(model: Any) -> None:
    expected = alone(model, "fixattn")
    for thread in range(3):
        with ThreadPoolExecutor(1, f"thread {thread}") as pool:
            assert pool.submit(alone, model, "fixattn").result() == expected
    with intervene(model, make_method("fixattn")), ThreadPoolExecutor(1) as pool:
        assert answer(model) == pool.submit(answer, model).result() == expected


def test_many_threads_at_once_are_answered_rightly_or_refused(model: Any) -> None:
    expected = {seed: alone(model, "fixattn", seed) for seed in range(6)}
    refused = []

    def ask(seed: int) -> None:
        try:
            assert alone(model, "fixattn", seed) == expected[seed]
        except RuntimeError as error:
            refused.append(str(error))

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(ask, seed) for seed in range(6)]:
            done.result()
    assert all("in an intervene block with fixattn of another thread" in each for each in refused)
    assert len(refused) < 6


def test_a_pass_that_broke_off_holds_nobody_up_in_its_thread(model: Any) -> None:
    method = make_method("fixattn", gamma=1)
    inputs = make_prompt(seed=3).inputs()
    with intervene(model, method):
        with pytest.raises(ValueError, match="padded on the right"):
            model(**batch([make_prompt(seed=3), make_prompt(seed=4)]) | right_padded())
        assert model(**inputs).logits.isfinite().all()


def right_padded() -> dict[str, Any]:
    inputs = batch([make_prompt(seed=3), make_prompt(seed=4)])
    return {name: inputs[name].flip(1) for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("name", ACTING)
def test_a_block_may_be_entered_again_and_inside_itself(model: Any, name: str) -> None:
    expected, plain = alone(model, name), alone(model, "vanilla")
    block = intervene(model, fit(name), WordTokenizer())
    for _ in range(2):
        with block:
            with block:
                assert answer(model) == expected
            assert answer(model) == expected
    assert "generate" not in vars(model)
    assert answer(model) == plain


def test_blocks_may_end_in_any_order(model: Any) -> None:
    fixattn, spin, plain = (alone(model, name) for name in ("fixattn", "spin", "vanilla"))
    first, second = ExitStack(), ExitStack()
    first.enter_context(intervene(model, make_method("fixattn")))
    second.enter_context(intervene(model, make_method("spin")))
    first.close()
    assert answer(model) == spin
    second.close()
    assert answer(model) == plain
    assert "generate" not in vars(model)
    assert alone(model, "fixattn") == fixattn


@pytest.mark.parametrize("method", [*map(fit, ACTING), make_method("pai+spin")], ids=[*ACTING, "pai+spin"])
def test_one_method_serves_two_models_at_once(model: Any, method: Any) -> None:
    models = [model, build_llava(seed=7)]
    expected = []
    for each in models:
        with intervene(each, fit(method.name), WordTokenizer()):
            expected.append(answer(each))
    assert expected[0] != expected[1]
    with intervene(models[0], method, WordTokenizer()), intervene(models[1], method, WordTokenizer()):
        assert [answer(each) for each in models] == expected
        with ThreadPoolExecutor(2) as pool:
            for _ in range(3):
                assert list(pool.map(answer, models)) == expected


class Words(WordTokenizer):
    """Enough of a tokenizer for streamers."""

    def decode(self, tokens: Any, **others: Any) -> str:
        return super().decode(tokens.tolist() if isinstance(tokens, torch.Tensor) else tokens, **others)


@pytest.mark.parametrize("name", [*ACTING, "vanilla"])
def test_a_streamer_is_given_the_answer_as_it_grows(model: Any, name: str) -> None:
    expected = alone(model, name)
    pieces: list[int] = []

    class Noting(TextStreamer):  # type: ignore[misc]
        def put(self, value: torch.Tensor) -> None:
            pieces.extend(value.flatten().tolist())

        def end(self) -> None:
            pieces.append(-1)

    with intervene(model, fit(name), WordTokenizer()):
        assert answer(model, streamer=Noting(Words())) == expected
    assert pieces[-STEPS - 1 :] == [*expected[0], -1]


def test_the_usual_thread_behind_a_streamer_works_inside_a_block(model: Any) -> None:
    expected = alone(model, "fixattn")
    streamer = TextIteratorStreamer(Words(), skip_prompt=True, timeout=LONGEST)
    with intervene(model, make_method("fixattn")):
        inputs = make_prompt(seed=3).inputs()
        thread = threading.Thread(target=model.generate, kwargs={**inputs, **settings(), "streamer": streamer})
        thread.start()
        text = "".join(streamer)
        thread.join()
    assert text.strip() == Words().decode(expected[0])
