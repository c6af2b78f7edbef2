"""The vision towers written out by hand, in float64: CLIP's, and those of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.

A patch attends to those of its own window. No patch is moved for that, as transformers does it: each knows its place.
"""

from __future__ import annotations

import math

import numpy as np
from naive_text import numbers, rotate, softmax


def affine(x, module):
    """A linear layer, or a convolution whose kernel is as large as a patch, on the rows of x."""
    weight = numbers(module.weight).reshape(len(module.weight), -1)
    return x @ weight.T + (0.0 if module.bias is None else numbers(module.bias))


def layer_norm(x, module):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + module.eps) * numbers(module.weight) + numbers(
        module.bias
    )


def norm(x, module):
    """LayerNorm, or RMSNorm where there is no bias."""
    if getattr(module, "bias", None) is not None:
        return layer_norm(x, module)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + module.variance_epsilon) * numbers(module.weight)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


ACTIVATIONS = {
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "silu": lambda x: x * sigmoid(x),
    "gelu": gelu,
    "gelu_pytorch_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
}


def attend(queries, keys, values, seen):
    """Attention of each head by itself, [patches, heads, head size] each; seen says who is seen by whom."""
    out = np.zeros_like(queries)
    for head in range(queries.shape[1]):
        for patch, query in enumerate(queries[:, head]):
            scores = keys[seen[patch], head] @ query / len(query) ** 0.5
            out[patch, head] = softmax(scores) @ values[seen[patch], head]
    return out.reshape(len(out), -1)


# CLIP


def clip(tower, pixels):
    """The states that enter each layer of a CLIP tower and leave the last, of one image, [1 + patches, size] each."""
    inside = getattr(tower, "vision_model", tower)
    size, heads = tower.config.patch_size, tower.config.num_attention_heads
    side = pixels.shape[-1] // size
    patches = [
        numbers(pixels[:, row * size : (row + 1) * size, column * size : (column + 1) * size]).ravel()
        for row in range(side)
        for column in range(side)
    ]
    embedded = affine(np.stack(patches), inside.embeddings.patch_embedding)
    states = np.concatenate([numbers(inside.embeddings.class_embedding)[None], embedded])
    states = layer_norm(states + numbers(inside.embeddings.position_embedding.weight), inside.pre_layrnorm)
    found, all_of_them = [states], np.ones((len(states), len(states)), dtype=bool)
    for layer in inside.encoder.layers:
        x = layer_norm(states, layer.layer_norm1)
        attention = layer.self_attn
        split = [affine(x, getattr(attention, f"{name}_proj")).reshape(len(x), heads, -1) for name in "qkv"]
        states = states + affine(attend(*split, all_of_them), attention.out_proj)
        x = affine(layer_norm(states, layer.layer_norm2), layer.mlp.fc1)
        states = states + affine(ACTIVATIONS[tower.config.hidden_act](x), layer.mlp.fc2)
        found.append(states)
    return found


# Qwen


def places(rows, columns, merge):
    """Row and column of each patch: block by block of those that are merged to one token."""
    return [
        (merge * block_row + row, merge * block_column + column)
        for block_row in range(rows // merge)
        for block_column in range(columns // merge)
        for row in range(merge)
        for column in range(merge)
    ]


def qwen(tower, picture):
    """Image features [tokens, size] of one picture, and those for DeepStack, a list of the same."""
    config = tower.config
    merge, heads = config.spatial_merge_size, config.num_heads
    _, rows, columns = picture["image_grid_thw"][0].tolist()
    where = places(rows, columns, merge)
    states = affine(numbers(picture["pixel_values"]), tower.patch_embed.proj)
    if hasattr(tower, "pos_embed"):
        states = states + interpolated(numbers(tower.pos_embed.weight), where, rows, columns)
    quarter = states.shape[1] // heads // 4
    rates = [config.rope_parameters["rope_theta"] ** (-i / quarter) for i in range(quarter)]
    angles = [[place * rate for place in both for rate in rates] for both in where]
    deep = []
    for index, block in enumerate(tower.blocks):
        windows = [window_of(config, index, *both) for both in where]
        seen = np.array([[mine == other for other in windows] for mine in windows])
        split = affine(norm(states, block.norm1), block.attn.qkv).reshape(len(states), 3, heads, -1)
        for which in (0, 1):
            for patch, of_patch in enumerate(angles):
                for head in range(heads):
                    split[patch, which, head] = rotate(split[patch, which, head], of_patch)
        states = states + affine(attend(split[:, 0], split[:, 1], split[:, 2], seen), block.attn.proj)
        states = states + mlp(norm(states, block.norm2), block.mlp, ACTIVATIONS[config.hidden_act])
        if index in getattr(config, "deepstack_visual_indexes", ()):
            deep.append(merged(states, tower.deepstack_merger_list[len(deep)], merge**2))
    return merged(states, tower.merger, merge**2), deep


def window_of(config, layer, row, column):
    """Which window of Qwen2.5-VL's a patch is in; in all layers of the others there is but one."""
    if layer in getattr(config, "fullatt_block_indexes", [layer]):
        return 0
    side = config.window_size // config.patch_size // config.spatial_merge_size * config.spatial_merge_size
    return row // side, column // side


def interpolated(table, where, rows, columns):
    """Positions learnt on a square, at the places of a grid laid over it, corner on corner, in linear interpolation."""
    side = math.isqrt(len(table))
    grid = table.reshape(side, side, -1)
    found = []
    for row, column in where:
        high = row * (side - 1) / (rows - 1)
        wide = column * (side - 1) / (columns - 1)
        top, left = min(int(high), side - 2), min(int(wide), side - 2)
        down, right = high - top, wide - left
        upper = (1 - right) * grid[top, left] + right * grid[top, left + 1]
        lower = (1 - right) * grid[top + 1, left] + right * grid[top + 1, left + 1]
        found.append((1 - down) * upper + down * lower)
    return np.stack(found)


def mlp(x, module, activation):
    if hasattr(module, "gate_proj"):
        return affine(activation(affine(x, module.gate_proj)) * affine(x, module.up_proj), module.down_proj)
    first, second = (
        (module.linear_fc1, module.linear_fc2) if hasattr(module, "linear_fc1") else (module.fc1, module.fc2)
    )
    return affine(activation(affine(x, first)), second)


def merged(states, merger, together):
    """A token of each block of patches; the norm comes before they are put together, or after where it is as wide."""
    of_patches = merger.norm if hasattr(merger, "norm") else merger.ln_q
    if len(of_patches.weight) == states.shape[1]:
        states = norm(states, of_patches)
    x = states.reshape(len(states) // together, -1)
    if len(of_patches.weight) == x.shape[1]:
        x = norm(x, of_patches)
    first, second = (merger.mlp[0], merger.mlp[2]) if hasattr(merger, "mlp") else (merger.linear_fc1, merger.linear_fc2)
    return affine(gelu(affine(x, first)), second)
