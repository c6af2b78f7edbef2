"""Build the demo's model: a tiny LLaVA of the real architecture, random but for its seed, with a real tokenizer.

    python -m lmms_fixattn.demo.build [FOLDER]

What the package ships in demo/model is the output for the default seed. The model has learnt nothing: its texts are
words of a small caption vocabulary in no meaningful order. It exists so that everything around a model can run and be
tested without a download. Same parts as LLaVA-1.5 (arXiv:2310.03744): a CLIP tower with a class token, whose
second-last layer is read, a projector of two layers with GELU, a Llama, byte-fallback BPE, the chat template.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

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

from lmms_fixattn.conversation import IMAGE, SYSTEM
from lmms_fixattn.metrics.coco_objects import CATEGORIES

SEED = 2  # with it some captions of the demo's scenes end by themselves within 64 tokens, and none is empty
SIDE, PATCH = 112, 14  # pixels: 8 x 8 patches
POSITIONS = 2048
FOLDER = Path(__file__).with_name("model")

# How far each kind of token's output row is scaled: whole words are what captions are made of, pieces of words are not,
# and the end of sequence is drawn often enough that some answers end by themselves and some run into the cap.
WORD_SCALE, PIECE_SCALE, END_SCALE = 1.0, 0.1, 1.2

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
    colours = itertools.cycle(["red", "blue", "green", "yellow", "black", "white", "brown", "gray", "pink", "orange"])
    places = itertools.cycle(["on the left", "on the right", "in the middle", "in the background", "at the top"])
    counts = itertools.cycle(["two", "three", "four", "five", "several", "many"])
    relations = itertools.cycle(["next to", "in front of", "behind", "under", "above", "near", "beside", "on top of"])
    others = CATEGORIES[1:] + CATEGORIES[:1]
    for name, other in zip(CATEGORIES, others, strict=True):
        colour, place, count, relation = next(colours), next(places), next(counts), next(relations)
        article = "an" if name[0] in "aeiou" else "a"
        yield f"The image shows {article} {name} {place}, {relation} the {other}."
        yield f"There is a {colour} {name} {place}. It is {relation} a small {other} and a large {name}."
        yield f"In the scene, {count} {name}s can be seen {place}, while the {other} is {colour}."
        yield f"A {colour} {name} with {article} {other} is visible {place} of the picture."
        yield f"Is there {article} {name} in the image?"
        yield f"Yes, there is {article} {name} in the image."
        yield f"No, there is no {name} in the image."
    yield from ("yes no Yes No", SYSTEM, "USER: ASSISTANT: Please help me describe the image in detail.")
    yield "Please describe this image in detail. Answer the question using a single word or phrase. What is this?"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Learn a byte-fallback BPE, as Llama's, in which every word of the captions is one token."""
    before = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.Sequence([before, pre_tokenizers.Punctuation("isolated")])
    trainer = trainers.BpeTrainer(vocab_size=4000, min_frequency=1, show_progress=False)
    learnt.train_from_iterator(sentences(), trainer)
    state = json.loads(learnt.to_str())["model"]
    pieces = sorted(state["vocab"], key=state["vocab"].get)
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


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int = SEED) -> LlavaForConditionalGeneration:
    """Draw the weights: larger than at initialisation, so that pictures and attention matter to the texts."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, projection_dim=64,
        image_size=SIDE, patch_size=PATCH, initializer_range=0.1, initializer_factor=3.0,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(SIDE // PATCH) ** 2,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlavaForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.model.multi_modal_projector.linear_2.weight, std=0.2)
    scale = torch.full((len(tokenizer), 1), PIECE_SCALE)
    words = {word for sentence in sentences() for word in tokenizer.tokenize(sentence)}
    scale[tokenizer.convert_tokens_to_ids(sorted(words))] = WORD_SCALE
    scale[[tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id, config.image_token_id]] = 0
    scale[tokenizer.eos_token_id] = END_SCALE
    model.lm_head.weight.data *= scale
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model.half()


def build(folder: Path, seed: int = SEED) -> None:
    """Write the model, the tokenizer and the processor into ``folder`` in transformers' layout."""
    tokenizer = build_tokenizer()
    build_processor(tokenizer).save_pretrained(folder)
    build_model(tokenizer, seed).save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the demo's model.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    build(arguments.folder, arguments.seed)
