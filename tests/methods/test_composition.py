"""Several methods in turn: whose hyper-parameter is whose, what does not go together, and that order counts."""

from __future__ import annotations

import pytest
import torch
from tiny_llava import WordTokenizer, batch, make_prompt

from lmms_fixattn import intervene, make_method


def logits(model, method, seeds=(60, 61)):
    with intervene(model, method, WordTokenizer()):
        out = model.generate(
            **batch([make_prompt(seed=seed) for seed in seeds]), max_new_tokens=4, min_new_tokens=4, do_sample=False,
            output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
    return torch.stack(out.scores)


def test_a_hyper_parameter_goes_to_its_only_owner_or_to_the_one_that_is_named():
    method = make_method("pai+spin", alpha="0.3", kept=0.5, **{"spin.layers": "0-2", "pai.layers": "1-"})
    assert method.name == "pai+spin"
    assert method.parts == (make_method("pai", alpha=0.3, layers="1-"), make_method("spin", kept=0.5, layers="0-2"))
    assert method.settings()["pai.alpha"] == 0.3
    assert method.settings()["spin.layers"] == (0, 2)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("pai+spin", {"layers": "0-2"}, "whose hyper-parameter is 'layers'.*pai and spin have it; write pai.layers="),
        ("pai+spin", {"nonsense": 1}, "whose hyper-parameter is 'nonsense'.*its parts have: pai.gamma"),
        ("pai+spin", {"vaf.enhance": 1}, "has no part 'vaf', which vaf.enhance names; parts: pai, spin"),
        ("pai+spin", {"alpha": 1, "pai.alpha": 1}, "pai.alpha is given twice"),
        ("pai+spin", {"pai.kept": 1}, "method pai has no hyper-parameter 'kept'"),
        ("pai+pai", {}, "pai is named twice"),
        ("pai+vanilla", {}, "vanilla is the unmodified model and adds nothing"),
        (
            "pai+fixattn",
            {},
            "pai and fixattn each need a contrastive.*room for one; turn one off .pai.gamma=1 or fixattn.gamma=1",
        ),
        ("pai+spinn", {}, "unknown method 'spinn' .did you mean 'spin'"),
        ("pai+", {}, "unknown method ''"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(name, given, message):
    with pytest.raises(ValueError, match=message):
        make_method(name, **given)


def test_a_part_with_neutral_settings_leaves_the_other_as_it_is(llava):
    alone = logits(llava, make_method("spin", kept=0.5))
    for whole in ("spin+pai", "pai+spin"):
        together = logits(llava, make_method(whole, kept=0.5, alpha=0, gamma=1))
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_the_order_of_two_edits_of_the_same_scores_counts(llava):
    one, other = (
        logits(llava, make_method(whole, gamma=1, **{"pai.alpha": 1.5, "hgai.alpha": 2, "hgai.layers": "1-4"}))
        for whole in ("pai+hgai", "hgai+pai")
    )
    assert not torch.allclose(one, other, atol=1e-2)


def test_a_composition_in_a_left_padded_batch_equals_it_alone(llava):
    method = make_method(
        "fixattn+vaf+truncate", head_modulation="proportional", words=3, **{"vaf.layers": "1-4", "enhance": 1.7}
    )
    both = logits(llava, method)
    for row, seed in enumerate((60, 61)):
        torch.testing.assert_close(both[:, row], logits(llava, method, seeds=(seed,))[:, 0], atol=1e-3, rtol=1e-4)


def test_decoding_and_attention_methods_compose(llava):
    inputs = make_prompt(seed=62).inputs()
    with intervene(llava, make_method("pai", alpha=1, gamma=1)):
        expected = llava.generate(**inputs, max_new_tokens=5, do_sample=False, num_beams=3)
    with intervene(llava, make_method("pai+beam", alpha=1, gamma=1, beams=3)):
        assert torch.equal(llava.generate(**inputs, max_new_tokens=5, do_sample=False), expected)
