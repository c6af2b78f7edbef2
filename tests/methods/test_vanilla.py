"""The empty method."""

from __future__ import annotations

import torch
from tiny_llava import batch, make_prompt

from lmms_fixattn import intervene, make_method


def test_vanilla_is_the_untouched_model_to_the_last_bit(llava):
    inputs = batch([make_prompt(seed=1), make_prompt(seed=2, images=0)])
    with torch.no_grad():
        expected = llava(**inputs).logits
        with intervene(llava, make_method("vanilla")):
            assert torch.equal(llava(**inputs).logits, expected)
