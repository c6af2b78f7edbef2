"""Truncate: what it ends, and where."""

from __future__ import annotations

import pytest
import torch
from tiny_llava import WordTokenizer, batch, make_prompt

from lmms_fixattn import intervene, make_method


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        ("A dog runs.", True),
        ("A dog runs", False),
        ("A dog.", False),
        ('She says "no dogs here."', True),
        ("Are there dogs?  ", True),
        ("It costs 3.", False),
        ("A flag of the U.S.", False),
        ("", False),
    ],
)
def test_an_answer_ends_with_the_sentence_that_has_enough_words(answer, ends):
    assert make_method("truncate", words=3).ends(answer) is ends


def test_each_row_ends_by_itself_and_is_the_unmodified_model_s_until_there(llava):
    prompts = [make_prompt(seed=n, images=n % 2) for n in range(3)]
    inputs = batch(prompts)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    plain = llava.generate(**inputs, **settings)
    start = inputs["input_ids"].shape[1]
    with intervene(llava, make_method("truncate", words=4), WordTokenizer()):
        cut = llava.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=2, suppress_tokens=[2])
    assert torch.equal(cut[:, : start + 4], plain[:, : start + 4])
    assert (cut[:, start + 4] == 2).all()


def test_it_needs_the_tokenizer_and_says_so(llava):
    needs = pytest.raises(
        ValueError, match=r"truncate reads or writes text: give intervene\(model, method, tokenizer\)"
    )
    with needs, intervene(llava, make_method("truncate")):
        pass
