"""A cache with room behind it holds what transformers' growing cache holds, and copies it less often."""

from __future__ import annotations

import pytest
import torch
from fitted_methods import fitted
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llava import WordTokenizer, batch, make_prompt
from transformers import DynamicCache, LlamaConfig

from lmms_fixattn import intervene, make_method
from lmms_fixattn.engine.kv_cache import fixed_cache, reserved_cache
from lmms_fixattn.models.transformers_api import with_cache

CONFIG = LlamaConfig(num_hidden_layers=2, hidden_size=6, num_attention_heads=2, vocab_size=11)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["token", "chunk", "reorder", "crop", "select", "repeat"]), max_size=14), st.randoms())
def test_it_holds_what_a_growing_cache_holds_whatever_is_done_to_it(operations, random):
    mine, theirs = reserved_cache(CONFIG), DynamicCache(config=CONFIG)
    draw = torch.Generator().manual_seed(random.randrange(1000))
    rows = 3
    for number, operation in enumerate(["chunk", *operations]):
        if operation in ("token", "chunk"):
            new = 1 if operation == "token" else random.choice((2, 130))
            for layer in range(2):
                keys, values = torch.randn(2, rows, 2, new, 3, generator=draw)
                for mine_kept, kept in zip(
                    mine.update(keys, values, layer), theirs.update(keys, values, layer), strict=True
                ):
                    assert torch.equal(mine_kept, kept)
        elif number:
            index = torch.randint(0, rows, (rows,), generator=draw)
            for cache in (mine, theirs):
                if operation == "reorder":
                    cache.reorder_cache(index)
                elif operation == "crop":
                    cache.crop(-1)
                elif operation == "select":
                    cache.batch_select_indices(torch.tensor([0]))
                else:
                    cache.batch_repeat_interleave(2)
            rows = {"select": 1, "repeat": 2 * rows}.get(operation, rows)
        assert mine.get_seq_length() == theirs.get_seq_length()


def test_steps_write_into_the_room_and_copy_nothing():
    cache = reserved_cache(CONFIG)
    prompt = torch.randn(2, 2, 2, 7, 3)
    places = {cache.update(*prompt, 0)[0].data_ptr()}
    for _ in range(100):
        places.add(cache.update(*torch.randn(2, 2, 2, 1, 3), 0)[0].data_ptr())
    assert len(places) == 1
    assert torch.equal(cache.layers[0].keys[:, :, :7], prompt[0])


def test_answers_are_those_on_a_growing_cache(llava):
    inputs = batch([make_prompt(seed=1), make_prompt(seed=2, images=0)])
    for name, settings_ in (("vanilla", {}), ("pai", {}), ("pai", {"num_beams": 3})):
        with intervene(llava, make_method(name)):
            plain = llava.generate(**inputs, max_new_tokens=6, do_sample=False, **settings_)
            past = reserved_cache(llava.config.text_config)
            again = llava.generate(**inputs, max_new_tokens=6, do_sample=False, **with_cache(llava, past), **settings_)
        assert torch.equal(again, plain)


@pytest.mark.parametrize(
    ("rows", "length", "same"),
    [(3, 130, True), (3, 8, True), (3, 257, False), (2, 130, False), (4, 130, False)],
    ids=["equal", "shorter", "longer", "fewer rows", "more rows"],
)
def test_a_cache_of_fixed_length_is_emptied_for_another_answer_where_it_will_do(rows, length, same):
    earlier = fixed_cache(CONFIG, 3, 130)
    assert fixed_cache(CONFIG, 3, 130, earlier) is not earlier  # nothing was ever in it
    for layer in range(2):
        earlier.update(*torch.randn(2, 3, 2, 7, 3), layer)
    place = earlier.layers[1].keys.data_ptr()
    found = fixed_cache(CONFIG, rows, length, earlier)
    assert (found is earlier) is same
    assert (int(found.get_seq_length()), found.layers[0].max_cache_len) == (0, 256 if same or length == 130 else 384)
    assert found.needed == length
    if same:
        assert found.layers[1].keys.data_ptr() == place
        assert not any(layer.keys.any() for layer in found.layers)


@pytest.mark.parametrize("name", ["fixattn", "vcd", "var", "dola"])
def test_a_cache_that_was_emptied_serves_the_next_answer(llava, name):
    method = fitted(name)
    prompts = [batch([make_prompt(seed=seed), make_prompt(seed=seed + 9)]) for seed in (1, 4, 2)]
    width = max(prompt["input_ids"].shape[1] for prompt in prompts)
    with intervene(llava, method, WordTokenizer()):
        expected = [llava.generate(**prompt, max_new_tokens=6, do_sample=False) for prompt in prompts]
        cache = None
        for prompt, answer in zip(prompts, expected, strict=True):
            cache = fixed_cache(llava.config.text_config, 2, width + 6, cache)
            found = llava.generate(
                **prompt, max_new_tokens=6, do_sample=False, **with_cache(llava, cache), disable_compile=True
            )
            assert torch.equal(found, answer)
    assert not any({"update", "reorder_cache"} & set(vars(layer)) for layer in cache.layers)
