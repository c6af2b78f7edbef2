"""The demo's LLaVA before it has learnt anything: tokenizer, processor, sizes, first weights.

Same parts as LLaVA-1.5 (arXiv:2310.03744): a CLIP tower with a class token, whose second-last layer is read, a
projector of two layers with GELU, a Llama, byte-fallback BPE, the chat template.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from demo_model.scenes import CAPTION_PROMPTS, SIDE, draw_scene, training_caption
from lmms_fixattn.data.pope_questions import question
from lmms_fixattn.models.prompts import IMAGE, SYSTEM
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES

PATCH = 14  # pixels: 10 x 10 patches
VISION_WIDTH = 128
TEXT_WIDTH = 128
POSITIONS = 2048

# LLaVA-1.5's turn format: pictures first, then the text, then a space.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'] | upper }}: {% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def sentences() -> Iterator[str]:
    """Yield the texts that the vocabulary is learnt from: captions, POPE's questions and answers, and the prompts."""
    chance = Random(0)
    for _ in range(500):
        yield training_caption(chance, draw_scene(chance, familiar=False))
    for asked in (*map(question, CATEGORIES), *CAPTION_PROMPTS):
        yield from (asked, f"\n{asked}")  # behind an image a prompt starts without a blank
    yield from ("Yes No USER: ASSISTANT:", SYSTEM, "\nUSER: ASSISTANT:")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Learn a byte-fallback BPE, as Llama's, in which every word of the captions is one token."""
    before = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.Sequence(
        [before, pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Punctuation("isolated")]
    )
    trainer = trainers.BpeTrainer(vocab_size=4000, min_frequency=1, show_progress=False)
    learnt.train_from_iterator(sentences(), trainer)
    state = json.loads(learnt.to_str())["model"]
    pieces = [piece for piece in sorted(state["vocab"], key=state["vocab"].get) if piece != "\n"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {name: index for index, name in enumerate(names)}
    merges = [tuple(pair) for pair in state["merges"]]
    bpe = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = learnt.pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>", IMAGE, "<pad>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Put the tokenizer and CLIP's image preparation together."""
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlavaForConditionalGeneration:
    """Draw the first weights, float32.

    The text model starts with keys equal to queries, so that attention begins as likeness: a word looks for image
    tokens that resemble it, which is what yes/no questions need and what so small a model is slow to find by itself.
    """
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=VISION_WIDTH, intermediate_size=2 * VISION_WIDTH, num_hidden_layers=4, num_attention_heads=4,
        projection_dim=VISION_WIDTH, image_size=SIDE, patch_size=PATCH,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=TEXT_WIDTH, intermediate_size=3 * TEXT_WIDTH, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(SIDE // PATCH) ** 2,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlavaForConditionalGeneration(config)
    for layer in model.model.language_model.layers:
        torch.nn.init.normal_(layer.self_attn.q_proj.weight, std=TEXT_WIDTH**-0.5)
        layer.self_attn.k_proj.weight.data.copy_(layer.self_attn.q_proj.weight.data)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model
