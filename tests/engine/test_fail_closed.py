"""transformers broken on purpose: an answer in which a method had no part is an error, for every method that acts.

A break is what a new release could do: another name, an argument that no longer arrives, a hook that is passed by. Each
is tried with the method's own answer as the control: unbroken, the method answers, and differently from vanilla.
"""

from __future__ import annotations

import functools

import pytest
import torch
from covering import covering
from fitted_methods import fitted
from tiny_llava import WordTokenizer, batch, make_prompt
from transformers import Cache, DynamicCache, LlavaForConditionalGeneration
from transformers.cache_utils import DynamicLayer
from transformers.models.llama import modeling_llama

from lmms_fixattn import METHODS, intervene
from lmms_fixattn.models import family, transformers_api
from lmms_fixattn.models.family import family_of_model
from lmms_fixattn.models.transformers_api import EngineError, cache_name, with_cache

NAME = cache_name(modeling_llama.LlamaModel.forward)
BY_NAME = {name: fitted(name) for name in METHODS}
ACTING = [name for name, method in BY_NAME.items() if method.edited_layers is not None or method.guides]
GUIDING = [name for name in ACTING if BY_NAME[name].guides]
BRANCHING = [name for name in ACTING if BY_NAME[name].branch is not None]
EARLY = [name for name in ACTING if BY_NAME[name].early_layers is not None]
READING = [name for name in ACTING if BY_NAME[name].has("observe_input")]
SELECTING = [name for name in ACTING if BY_NAME[name].vision_parts]


def answer(model, name, **arguments):
    inputs = batch([make_prompt(seed=3), make_prompt(seed=4)])
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, **arguments}
    with intervene(model, BY_NAME[name], WordTokenizer()):
        return model.generate(**inputs, output_scores=True, return_dict_in_generate=True, **settings)


def replaced(monkeypatch, owner, name):
    """Let a function be replaced by one that is given it as its first argument, behind self."""

    def by(new):
        old = getattr(owner, name)

        @functools.wraps(old)
        def function(self, *args, **kwargs):
            return new(functools.partial(old, self), *args, **kwargs)

        monkeypatch.setattr(owner, name, function)

    return by


def rename_in_the_signature(patch, model):
    """The text model takes its cache as kv, as 5.24 took it as cache."""
    old = modeling_llama.LlamaModel.forward

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, kv=None, inputs_embeds=None, use_cache=None, **kw
    ):
        others = {"position_ids": position_ids, "inputs_embeds": inputs_embeds, "use_cache": use_cache}
        return old(self, input_ids, attention_mask, **{NAME: kv}, **others, **kw)

    patch.setattr(modeling_llama.LlamaModel, "forward", forward)
    own = type(model.model).forward

    @functools.wraps(own)
    def hand_over(self, *args, **kwargs):
        text = self.language_model
        call = text.__call__
        self.language_model = _Renaming(call)
        try:
            return own(self, *args, **kwargs)
        finally:
            self.language_model = text

    assert own is not hand_over
    patch.setattr(type(model.model), "forward", hand_over)


class _Renaming(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, **kwargs):
        kwargs["kv"] = kwargs.pop(NAME)
        return self.call(**kwargs)


def rename_behind_the_signature(patch, model):
    """The model above hands the cache over by a name that the text model's signature does not show."""
    text = type(model.model.language_model)
    old = text.__call__

    def call(self, *args, **kwargs):
        kwargs["kv"] = kwargs.pop(NAME, kwargs.get("kv"))
        return old(self, *args, **kwargs)

    patch.setattr(text, "__call__", call, raising=False)

    @replaced(patch, text, "forward")
    def forward(own, *args, kv=None, **kwargs):
        return own(*args, **{NAME: kv}, **kwargs)


def drop_the_keyword(patch, model):
    """A decoder layer hands only the keywords on that it knows."""

    @replaced(patch, modeling_llama.LlamaAttention, "forward")
    def forward(own, *args, **kwargs):
        return own(*args, **{key: value for key, value in kwargs.items() if "fixattn" not in key})


def drop_the_keyword_in_one_layer(patch, model):
    attention = model.model.language_model.layers[3].self_attn
    own = attention.forward

    def forward(*args, **kwargs):
        return own(*args, **{key: value for key, value in kwargs.items() if "fixattn" not in key})

    patch.setattr(attention, "forward", forward)


def another_cache_in_each_step(patch, model):
    """A step is given a cache that holds its prompt but is another object."""

    @replaced(patch, type(model.model), "forward")
    def forward(own, *args, **kwargs):
        past = kwargs[NAME]
        if past.get_seq_length():
            other = DynamicCache()
            for layer in range(len(past.layers)):
                other.update(past.layers[layer].keys, past.layers[layer].values, layer)
            kwargs[NAME] = other
        return own(*args, **kwargs)


def an_empty_cache_in_each_step(patch, model):
    """A step is given a new cache, so that it looks like a prompt of one token."""

    @replaced(patch, type(model.model), "forward")
    def forward(own, *args, **kwargs):
        if kwargs[NAME].get_seq_length():
            kwargs = {**kwargs, NAME: DynamicCache(), "attention_mask": None, "position_ids": None}
        return own(*args, **kwargs)


def swap_the_attention(patch, model):
    """Something sets the attention implementation back once the block was entered."""

    @replaced(patch, type(model), "forward")
    def forward(own, *args, **kwargs):
        for layer in model.model.language_model.layers:
            layer.self_attn.config._attn_implementation = "sdpa"
        return own(*args, **kwargs)


def swap_the_attention_after_the_prompt(patch, model):
    @replaced(patch, type(model), "forward")
    def forward(own, *args, **kwargs):
        output = own(*args, **kwargs)
        model.model.language_model.config._attn_implementation = "sdpa"
        return output


def set_attention_does_nothing(patch, model):
    patch.setattr(type(model), "set_attn_implementation", lambda self, *args, **kwargs: None)


def pass_by_the_hooks(patch, model):
    """The text model's forward is called itself, as a compiled or wrapped one may be."""
    patch.setattr(
        type(model.model.language_model), "__call__", lambda self, *args, **kwargs: self.forward(*args, **kwargs)
    )


def pass_by_the_hooks_and_the_attention(patch, model):
    pass_by_the_hooks(patch, model)
    swap_the_attention(patch, model)


def leave_one_layer_out(patch, model):
    """A layer is skipped, or has attention of another kind."""
    layer = model.model.language_model.layers[2]
    patch.setattr(layer, "forward", lambda hidden_states, **kwargs: hidden_states)


def run_a_layer_twice(patch, model):
    layer = model.model.language_model.layers[2]
    own = layer.forward

    def forward(hidden_states, **kwargs):
        own(hidden_states, **{**kwargs, NAME: None, "attention_mask": None})
        return own(hidden_states, **kwargs)

    patch.setattr(layer, "forward", forward)


def an_unknown_cache(patch, model):
    """generate makes a cache of a class that nobody knows."""

    class Layer:
        def __init__(self):
            self.layer = DynamicLayer()

        def __getattr__(self, name):
            return getattr(self.layer, name)

    class Cached(Cache):
        def __init__(self, *args, **kwargs):
            super().__init__(layer_class_to_replicate=Layer)

    own = type(model).generate

    def generate(self, *args, **kwargs):
        return own(self, *args, **kwargs, **with_cache(model, Cached()))

    patch.setattr(type(model), "generate", generate)


def a_cache_that_holds_nothing(patch, model):
    """The cache returns what it is given and keeps none of it."""
    patch.setattr(DynamicLayer, "update", lambda self, keys, values, *args, **kwargs: (keys, values))


def drop_the_mask(patch, model):
    """Our name has no mask function, for which transformers masks nothing."""

    @replaced(patch, modeling_llama.LlamaAttention, "forward")
    def forward(own, *args, **kwargs):
        return own(*args, **{**kwargs, "attention_mask": None})


def move_the_text_model(patch, model):
    """The text model lies elsewhere."""
    patch.setattr(family, "inside", moved(family.inside))


def moved(own):
    def inside(owner, path):
        return own(owner, path.replace("language_model", "decoder"))

    return inside


def forget_the_processors(patch, model):
    """generate leaves out the logits processors that it is given."""
    own = type(model).generate

    def generate(self, *args, logits_processor=None, **kwargs):
        return own(self, *args, **kwargs)

    patch.setattr(type(model), "generate", generate)


def forget_the_processors_after_the_first_token(patch, model):
    own = LlavaForConditionalGeneration._get_logits_processor

    def processors(self, *args, **kwargs):
        made = own(self, *args, **kwargs)
        return type(made)([_Once(processor) for processor in made])

    patch.setattr(LlavaForConditionalGeneration, "_get_logits_processor", processors)


class _Once:
    def __init__(self, processor):
        self.processor = processor

    def __call__(self, ids, scores):
        processor, self.processor = self.processor, None
        return scores if processor is None else processor(ids, scores)


def skip_layer_hooks(patch, model):
    """Layers are run by their forward, past their hooks."""
    patch.setattr(modeling_llama.LlamaDecoderLayer, "__call__", lambda self, *args, **kw: self.forward(*args, **kw))


def branch_stands_still(patch, model):
    """The cache hands new keys to no layer of the answer's cache, so that the branch's is not filled either."""

    @replaced(patch, Cache, "update")
    def update(own, keys, values, layer, *args, **kwargs):
        cache = own.args[0]
        return DynamicLayer.update(cache.layers[layer], keys, values)


def branch_reads_nothing(patch, model):
    """The branch's prompt is read into another cache than the one that it is given."""

    @replaced(patch, type(model.model.language_model), "forward")
    def forward(own, *args, **kwargs):
        if kwargs.get("lmms_fixattn_edit") == "unedited":
            kwargs[NAME] = DynamicCache()
        return own(*args, **kwargs)


def beams_without_reordering(patch, model):
    """Beam search reorders the cache's tensors itself."""

    def reorder(self, beams):
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[beams], layer.values[beams]

    patch.setattr(Cache, "reorder_cache", reorder)


def unread_vision(patch, model):
    """The vision tower's attention modules are run past their hooks."""
    attention = type(model.model.vision_tower.encoder.layers[0].self_attn)
    patch.setattr(attention, "__call__", lambda self, *args, **kwargs: self.forward(*args, **kwargs))


EVERY = [
    rename_in_the_signature,
    rename_behind_the_signature,
    drop_the_keyword,
    drop_the_keyword_in_one_layer,
    another_cache_in_each_step,
    an_empty_cache_in_each_step,
    swap_the_attention,
    swap_the_attention_after_the_prompt,
    set_attention_does_nothing,
    pass_by_the_hooks,
    pass_by_the_hooks_and_the_attention,
    leave_one_layer_out,
    run_a_layer_twice,
    an_unknown_cache,
    a_cache_that_holds_nothing,
    drop_the_mask,
    move_the_text_model,
    forget_the_processors,
    forget_the_processors_after_the_first_token,
]
BREAKS = [
    *covering(EVERY, ACTING),
    *covering([skip_layer_hooks], sorted({*EARLY, *READING})),
    *covering([branch_stands_still, branch_reads_nothing, beams_without_reordering], BRANCHING),
    *covering([unread_vision], SELECTING),
]
ARGUMENTS = {beams_without_reordering: {"num_beams": 3}}


SPEAKS_FOR_ITSELF = {
    another_cache_in_each_step: (ValueError,),  # "the cache was filled outside this intervene block"
    branch_stands_still: (RuntimeError,),  # torch's, of the branch's rows among the answer's keys
}
"""Breaks that end in another clear error before the engine sees them."""


@pytest.fixture(scope="module")
def plain(llava):
    """What the model answers without a method, before anything was broken."""
    return answer(llava, "vanilla")


@pytest.mark.parametrize("name", ACTING)
def test_unbroken_every_method_that_acts_answers_in_its_own_way(llava, plain, name):
    assert not torch.allclose(torch.stack(answer(llava, name).scores), torch.stack(plain.scores), atol=1e-3)


@pytest.mark.parametrize(("broken", "name"), BREAKS, ids=lambda value: getattr(value, "__name__", value))
def test_every_break_of_transformers_ends_in_an_error_and_no_answer(llava, plain, broken, name):
    with pytest.MonkeyPatch.context() as patch:
        broken(patch, llava)
        with pytest.raises((EngineError, *SPEAKS_FOR_ITSELF.get(broken, ()))) as caught:
            answer(llava, name, **ARGUMENTS.get(broken, {}))
    assert torch.equal(answer(llava, "vanilla").sequences, plain.sequences)
    if caught.type is EngineError:
        assert "transformers" in str(caught.value)
        assert "lmms-fixattn check" in str(caught.value)
    assert llava.model.language_model.config._attn_implementation == "sdpa"


def test_no_method_enters_the_block_where_the_cache_has_another_name(llava):
    with pytest.MonkeyPatch.context() as patch:
        rename_in_the_signature(patch, llava)
        for name in METHODS:
            with pytest.raises(EngineError, match="to take a KV cache as cache or past_key_values"):
                answer(llava, name)


@pytest.mark.parametrize("name", [name for name, method in BY_NAME.items() if method.generation])
def test_an_argument_of_generate_that_is_no_longer_known_is_an_error(llava, name):
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GenerationConfig, "update", lambda self, **given: given)
        with pytest.raises(EngineError, match="knows no"), intervene(llava, BY_NAME[name], WordTokenizer()):
            llava.generate(**batch([make_prompt(seed=3)]), generation_config=config)


def test_a_method_that_ends_answers_notices_that_it_is_not_asked(llava):
    with pytest.MonkeyPatch.context() as patch:
        forget_the_processors(patch, llava)
        with pytest.raises(EngineError, match="EndWhen for 0 of"):
            answer(llava, "truncate")


@pytest.mark.parametrize("name", ACTING)
def test_an_error_names_the_method_and_the_layer(llava, name):
    with pytest.MonkeyPatch.context() as patch:
        leave_one_layer_out(patch, llava)
        with pytest.raises(EngineError, match=f"{name}: layer 2: .*in 1 of"):
            answer(llava, name)


@pytest.mark.system
@pytest.mark.parametrize("name", ACTING)
def test_a_break_after_the_prompt_is_an_error_while_a_compiled_step_is_traced(llava, name):
    """Nothing is counted in a graph, but what breaks after the prompt is an error that the tracer meets."""
    config = transformers_api.compiling_everywhere()
    config.backend, config.mode = "eager", None
    inputs = batch([make_prompt(seed=3), make_prompt(seed=4)])
    settings = {"max_new_tokens": 4, "do_sample": False, "cache_implementation": "static", "compile_config": config}
    torch._dynamo.reset()
    try:
        with intervene(llava, BY_NAME[name], WordTokenizer()):
            assert llava.generate(**inputs, **settings).shape[1] > inputs["input_ids"].shape[1]
            torch._dynamo.reset()
            with pytest.MonkeyPatch.context() as patch:
                swap_the_attention_after_the_prompt(patch, llava)
                with pytest.raises(Exception, match="raise EngineError"):
                    llava.generate(**inputs, **settings)
            family_of_model(llava).use_attention(llava, llava.model.language_model.config._attn_implementation)
    finally:
        torch._dynamo.reset()
        llava.__dict__.pop("_compiled_call", None)
        llava.__dict__.pop("_last_compile_config", None)
