"""What LLaVA-NeXT makes of a prompt, by hand: which image token is which patch of which tile, and where a row ends."""

from __future__ import annotations

import naive_llava
import torch
from naive_text import in_a_row, numbers, words


def read(model, ids, pictures):
    """Image features in the places of image tokens; positions count up."""
    rows = words(model, ids)
    places = iter([place for place, token in enumerate(ids) if token == model.config.image_token_id])
    for picture in pictures:
        height, width = picture["image_sizes"][0].tolist()
        tiles = tile_features(model, picture["pixel_values"][0])
        for what in layout(model.config, height, width):
            rows[next(places)] = numbers(model.model.image_newline if what is None else tiles[what])
    assert next(places, None) is None
    return in_a_row(rows)


def tile_features(model, pixels):
    """Features of each patch, by tile, row and column: a CLIP tower run on one tile at a time."""
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    features = {}
    for index, tile in enumerate(pixels):
        states = model.model.vision_tower(tile[None], output_hidden_states=True).hidden_states
        patches = model.model.multi_modal_projector(states[model.config.vision_feature_layer][0, 1:])
        for place, patch in enumerate(patches):
            features[index, place // side, place % side] = patch
    return features


def resolution(config, height, width):
    """The pinpoint, (height, width), that keeps most of the picture's pixels, of these the one that wastes least."""

    def kept(pinpoint):
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        return min(int(width * scale) * int(height * scale), width * height)

    pinpoints = [tuple(pinpoint) for pinpoint in config.image_grid_pinpoints]
    return max(pinpoints, key=lambda pinpoint: (kept(pinpoint), kept(pinpoint) - pinpoint[0] * pinpoint[1]))


def layout(config, height, width):
    """Each image token of a picture: (tile, row, column) of its patch, or None for the end of a row of patches.

    First come the patches of the whole picture, tile 0, without ends of rows; then those of all other tiles, in rows
    across them, without the rows or columns that are padding.
    """
    tall, wide = resolution(config, height, width)
    side = config.vision_config.image_size // config.vision_config.patch_size
    down, across = tall // config.vision_config.image_size, wide // config.vision_config.image_size
    tokens = [(0, row, column) for row in range(side) for column in range(side)]
    first_row, first_column = 0, 0
    if width / height > (across * side) / (down * side):
        first_row = (down * side - int(round(height * (across * side / width), 7))) // 2
    else:
        first_column = (across * side - int(round(width * (down * side / height), 7))) // 2
    for row in range(first_row, down * side - first_row):
        for column in range(first_column, across * side - first_column):
            tokens.append((1 + row // side * across + column // side, row % side, column % side))
        tokens.append(None)
    return tokens


def tiles_of(config, height, width):
    """How many tiles the picture is cut into, the whole picture among them."""
    tall, wide = resolution(config, height, width)
    side = config.vision_config.image_size
    return 1 + tall // side * (wide // side)


def together(pictures):
    """Pictures of one batch as the processor puts them together: tiles padded with zeros to the same number."""
    most = max(picture["pixel_values"].shape[1] for picture in pictures)
    padded = []
    for picture in pictures:
        tiles = picture["pixel_values"][0]
        padded.append(torch.cat([tiles, tiles.new_zeros(most - len(tiles), *tiles.shape[1:])]))
    sizes = torch.cat([picture["image_sizes"] for picture in pictures])
    return {"pixel_values": torch.stack(padded), "image_sizes": sizes}


def select(model, picture, fix):
    """Gains of one image's tokens: of each tile as of an image by itself, among its patches that are tokens."""
    config = model.config
    side = config.vision_config.image_size // config.vision_config.patch_size
    tokens = layout(config, *picture["image_sizes"][0].tolist())
    gains = {}
    for index, tile in enumerate(picture["pixel_values"][0]):
        real = sorted(what[1] * side + what[2] for what in tokens if what is not None and what[0] == index)
        for place, gain in zip(real, naive_llava.select(model, {"pixel_values": tile[None]}, fix, real), strict=True):
            gains[index, place // side, place % side] = gain
    return [0.0 if what is None else gains[what] for what in tokens]
