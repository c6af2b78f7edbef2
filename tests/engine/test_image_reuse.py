"""Pictures encoded once and prompts' beginnings read once: the same scores as without, for every method, counted."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any

import pytest
import torch
from covering import in_the_system_run
from fitted_methods import DEMO_METHODS
from PIL import Image
from transformers import GenerationConfig

from lmms_fixattn import intervene, make_method
from lmms_fixattn.engine.compiled_decode import FixedSteps, distance, generate_growing
from lmms_fixattn.engine.prefix_cache import PrefixCache
from lmms_fixattn.engine.vision_cache import VisionCache
from lmms_fixattn.models.checkpoint import Checkpoint
from lmms_fixattn.models.encoding import Encoded, PromptEncoder
from lmms_fixattn.models.vision_watch import watching

pytestmark = pytest.mark.system

QUESTIONS = ("Is there a dog in the image?", "What?", "Please describe this image in detail.", "Is it a big red car?")


def picture(seed: int) -> Image.Image:
    tiles = torch.randint(0, 256, (5, 7, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(tiles.numpy()).resize((91, 65), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def demo() -> tuple[Any, PromptEncoder]:
    checkpoint = Checkpoint.find("demo", "main")
    model = checkpoint.load_model(torch.float32, torch.device("cpu"), "", None)
    return model, PromptEncoder(checkpoint.load_processor(), checkpoint.config, "default")


def encode(encoder: PromptEncoder, asked: Sequence[tuple[str, Sequence[int]]]) -> list[Encoded]:
    """Encode questions about pictures, given by their seeds."""
    return [
        encoder.encode(
            [{"role": "user", "content": [*({"type": "image", "url": picture(seed)} for seed in seeds), text(words)]}]
        )
        for words, seeds in asked
    ]


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


ASKED = [(QUESTIONS[index % 4], [index % 3]) for index in range(7)]
MIXED = [*ASKED, ("Hi", []), ("Which one is red?", [0, 4]), ("Both?", [0, 4]), ("How do you do?", []), ("None", [])]


@contextmanager
def reusing(
    model: Any, prompts: Sequence[Encoded], prefixes: PrefixCache | None = None
) -> Iterator[tuple[VisionCache, PrefixCache]]:
    features, prefixes = VisionCache(), prefixes or PrefixCache()
    with ExitStack() as stack:
        stack.enter_context(features.reused(model, [name for prompt in prompts for name in prompt.pictures]))
        stack.enter_context(prefixes.shared(model, [prompt.prefix for prompt in prompts]))
        yield features, prefixes


def generate(demo: Any, prompts: Sequence[Encoded], **kwargs: Any) -> Any:
    model, encoder = demo
    given = {"max_new_tokens": 5, "return_dict_in_generate": True, "output_scores": True, **kwargs}
    with torch.inference_mode():
        return model.generate(**encoder.batch(prompts), **given)


def assert_same(found: Any, expected: Any) -> None:
    assert torch.equal(found.sequences, expected.sequences)
    for mine, theirs in zip(found.scores, expected.scores, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-4)


FEW = ["vanilla", "fixattn", "var", "icd", "dola", "beam"]
"""One method of each kind: none, edits with a branch, what reads states, an instruction, early layers, beams."""


@pytest.mark.parametrize("name", in_the_system_run(DEMO_METHODS, but=FEW))
def test_every_method_gives_the_scores_that_it_gives_without_reuse(demo: Any, name: str) -> None:
    model, encoder = demo
    asked = ASKED if name == "beam" and not encoder.family.keeps_images_in_order_under_beams() else MIXED
    prompts = encode(encoder, asked)
    with intervene(model, make_method(name, **DEMO_METHODS[name]), encoder.tokenizer):
        torch.manual_seed(0)
        expected = generate(demo, prompts)
        with reusing(model, prompts) as (features, prefixes):
            torch.manual_seed(0)
            assert_same(generate(demo, prompts), expected)
    pictures = [seed for _, seeds in asked for seed in seeds]
    assert features.encoded == len(set(pictures))
    assert prefixes.computed <= sum(bool(seeds) for _, seeds in asked)


def test_random_tokens_are_those_of_the_picture_however_it_was_encoded(demo: Any) -> None:
    model, encoder = demo
    prompts = encode(encoder, ASKED)
    method = make_method("fixattn", alpha=1.5, layers="0-", selection="random")
    with intervene(model, method, encoder.tokenizer):
        expected = [generate(demo, [prompt], min_new_tokens=5) for prompt in prompts[:3]]
        with reusing(model, prompts):
            found = generate(demo, prompts, min_new_tokens=5)
    for row, alone in enumerate(expected):
        for mine, theirs in zip(found.scores, alone.scores, strict=True):
            torch.testing.assert_close(mine[row : row + 1], theirs, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("form", ["default", "llava_v1", "pai"])
def test_what_is_before_the_image_is_shared_in_every_form_of_the_prompt(demo: Any, form: str) -> None:
    model, encoder = demo
    other = PromptEncoder(encoder.processor, model.config, form)
    prompts = encode(other, ASKED)
    expected = generate(demo, prompts)
    with reusing(model, prompts) as (_, prefixes):
        assert_same(generate(demo, prompts), expected)
    assert prefixes.computed == 3


@pytest.mark.parametrize("name", ["vanilla", "fixattn", "vaf", "var", "vcd"])
@pytest.mark.parametrize("padded", [False, True], ids=["equal lengths", "padded"])
def test_a_cache_of_fixed_length_shares_as_well(demo: Any, name: str, padded: bool) -> None:
    model, encoder = demo
    prompts = encode(encoder, ASKED if padded else [(QUESTIONS[2], [index % 2]) for index in range(5)])
    with intervene(model, make_method(name, **DEMO_METHODS[name]), encoder.tokenizer):
        expected = generate(demo, prompts)
        with reusing(model, prompts) as (_, prefixes):
            assert_same(generate(demo, prompts, cache_implementation="static"), expected)
    assert prefixes.computed == (3 if padded else 2)


def test_beams_and_samples_share_as_well(demo: Any) -> None:
    model, encoder = demo
    prompts = encode(encoder, ASKED)
    for kwargs in ({"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2, "temperature": 1.3}):
        with intervene(model, make_method("fixattn", gamma=1.3), encoder.tokenizer):
            torch.manual_seed(3)
            expected = generate(demo, prompts, **kwargs)
            with reusing(model, prompts):
                torch.manual_seed(3)
                assert_same(generate(demo, prompts, **kwargs), expected)


BATCHES = ([0, 1, 1], [1, 2], [1], [2, 0, 1], [2])
"""Which pictures the prompts of each batch are about."""


STATIC = {"cache_implementation": "static"}


@pytest.mark.parametrize(
    ("name", "fixed"),
    in_the_system_run(product(DEMO_METHODS, [{}, STATIC]), but=[("fixattn", {}), ("var", {}), ("vanilla", STATIC)]),
)
def test_beginnings_of_earlier_batches_are_not_read_again(demo: Any, name: str, fixed: dict[str, Any]) -> None:
    model, encoder = demo
    if name == "beam" and fixed:
        pytest.skip("beams of a cache of fixed length are transformers' own business")
    prefixes, method = PrefixCache(), make_method(name, **DEMO_METHODS[name])
    with intervene(model, method, encoder.tokenizer):
        for place, seeds in enumerate(BATCHES):
            prompts = encode(encoder, [(QUESTIONS[(place + number) % 4], [seed]) for number, seed in enumerate(seeds)])
            torch.manual_seed(place)
            expected = generate(demo, prompts, **fixed)
            with reusing(model, prompts, prefixes):
                torch.manual_seed(place)
                assert_same(generate(demo, prompts, **fixed), expected)
    reads = any(part.has("observe_input") for part in method.parts)
    assert prefixes.computed == (2 + 2 + 1 + 3 + 1 if reads else 3)


def test_prompts_of_several_lengths_and_kinds_find_what_they_begin_with(demo: Any) -> None:
    """Left to chance: forms of the prompt with other words before the image, no image, two images, any batch size."""
    model, encoder = demo
    draw = random.Random(5)
    encoders = [PromptEncoder(encoder.processor, model.config, form) for form in ("default", "llava_v1")]
    asked = [
        encode(draw.choice(encoders), [(draw.choice(QUESTIONS), draw.choice([[0], [1], [2], [], [0, 1]]))])[0]
        for _ in range(40)
    ]
    prefixes, start = PrefixCache(), 0
    with intervene(model, make_method("fixattn"), encoder.tokenizer):
        while start < len(asked):
            prompts = asked[start : start + draw.randrange(1, 7)]
            start += len(prompts)
            expected = generate(demo, prompts)
            with reusing(model, prompts, prefixes):
                assert_same(generate(demo, prompts), expected)
    several = len({prompt.prefix for prompt in asked if prompt.pictures})
    assert several == 8
    # A prompt without image that is as long as its batch leaves nothing to read first.
    assert several <= prefixes.computed < sum(bool(prompt.pictures) for prompt in asked) / 2


def test_what_is_kept_stays_within_the_bound_and_is_of_the_latest_prompts(demo: Any) -> None:
    model, encoder = demo
    first, second = (encode(encoder, [(QUESTIONS[0], [seed]) for seed in seeds]) for seeds in ([0, 1, 2, 3], [3, 2, 1]))
    text = model.config.text_config
    head = text.hidden_size // text.num_attention_heads
    one = first[0].prefix[1] * 2 * text.num_hidden_layers * text.num_key_value_heads * head * 4
    for most, computed in ((2 * one, 4 + 1), (2 * one - 1, 4 + 2), (one - 1, 4 + 3), (0, 4 + 3)):
        prefixes = PrefixCache(most)
        for prompts in (first, second):
            with reusing(model, prompts, prefixes):
                generate(demo, prompts)
        assert prefixes.computed == computed
        assert prefixes._kept.held <= most


def test_an_error_lets_go_of_what_was_kept(demo: Any) -> None:
    model, encoder = demo
    prompts, prefixes = encode(encoder, ASKED[:1]), PrefixCache()
    with reusing(model, prompts, prefixes):
        generate(demo, prompts)
    assert len(prefixes._kept) == 1
    with pytest.raises(torch.OutOfMemoryError), reusing(model, prompts, prefixes):
        raise torch.OutOfMemoryError
    assert (len(prefixes._kept), prefixes._kept.held) == (0, 0)


def test_a_beginning_goes_through_the_layers_once(demo: Any) -> None:
    """Counted in tokens that the first layer is run on at prefill."""
    model, encoder = demo
    prompts = encode(encoder, [(QUESTIONS[0], [0])] * 8 + [(QUESTIONS[3], [1])] * 8)
    passed: list[int] = []
    handle = model.model.language_model.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: passed.append(args[0].shape[:2].numel()), with_kwargs=True
    )
    generate(demo, prompts, max_new_tokens=1)
    plain = sum(passed)
    passed.clear()
    with reusing(model, prompts):
        generate(demo, prompts, max_new_tokens=1)
    handle.remove()
    width = max(len(prompt.ids) for prompt in prompts)
    begun = min(width - len(prompt.ids) + prompt.prefix[1] for prompt in prompts)
    assert begun == prompts[0].prefix[1]
    assert plain == 16 * width
    assert sum(passed) == 2 * begun + 16 * (width - begun)
    assert plain > 3 * sum(passed)


def test_pictures_of_earlier_batches_are_not_encoded_again_within_the_bound(demo: Any) -> None:
    model, encoder = demo
    batches = [
        encode(encoder, [(QUESTIONS[n % 4], [seed]) for n, seed in enumerate(seeds)]) for seeds in ([1, 2], [2, 3, 1])
    ]
    method = make_method("fixattn", gamma=1)
    for most, encoded in ((1 << 20, 3), (0, 5)):
        features = VisionCache(most)
        with intervene(model, method):
            for prompts in batches:
                expected = generate(demo, prompts)
                with features.reused(model, [name for prompt in prompts for name in prompt.pictures]):
                    assert_same(generate(demo, prompts), expected)
        assert features.encoded == encoded


def test_a_method_that_reads_more_of_the_tower_has_pictures_encoded_again(demo: Any) -> None:
    model, encoder = demo
    prompts, features = encode(encoder, ASKED[:1]), VisionCache()
    for name, encoded in (("vanilla", 1), ("fixattn", 2), ("vanilla", 2)):
        with intervene(model, make_method(name), encoder.tokenizer):
            expected = generate(demo, prompts)
            with features.reused(model, prompts[0].pictures):
                assert_same(generate(demo, prompts), expected)
        assert features.encoded == encoded


def test_pixels_of_another_number_of_pictures_are_refused(demo: Any) -> None:
    model, encoder = demo
    prompts, two = encode(encoder, ASKED[:3]), ["one", "another"]
    with (
        VisionCache().reused(model, two),
        pytest.raises(ValueError, match="pixels of 2 pictures, got those of 3"),
    ):
        generate(demo, prompts)


def test_nothing_stays_on_the_model_after_the_block_or_an_error_inside_it(demo: Any) -> None:
    model, encoder = demo
    prompts = encode(encoder, ASKED)
    expected = generate(demo, prompts)
    with pytest.raises(KeyError), reusing(model, prompts):
        raise KeyError
    assert "forward" not in vars(model.model.vision_tower)
    assert watching(model.model.vision_tower) is None
    assert not model.model.language_model._forward_pre_hooks
    assert not model.model.language_model._forward_hooks
    assert_same(generate(demo, prompts), expected)


@pytest.mark.system
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)], ids=str)
@pytest.mark.parametrize("name", ["vanilla", "fixattn", "var", "dola"])
def test_half_precision_logits_stay_within_a_bound(demo: Any, name: str, dtype: torch.dtype, bound: float) -> None:
    """Of the largest logit, with pictures and beginnings reused, also from batch to batch, on either kind of cache."""
    model, encoder = demo
    half, config = copy.deepcopy(model).to(dtype), GenerationConfig(max_new_tokens=5, do_sample=False)
    config.output_logits = config.return_dict_in_generate = True
    prefixes, fixed = PrefixCache(), FixedSteps(compiled=False)
    with intervene(half, make_method(name, **DEMO_METHODS[name]), encoder.tokenizer):
        for start in range(0, len(MIXED), 4):
            prompts = encode(encoder, MIXED[start : start + 4])
            inputs = encoder.batch(prompts)
            inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
            with torch.inference_mode():
                plain = half.generate(**inputs, generation_config=config)
                for generate_ in (generate_growing, fixed.generate):
                    with reusing(half, prompts, prefixes):
                        found = generate_(half, inputs, config)
                    assert distance(plain, found, inputs["input_ids"].shape[1]) <= bound
