"""What Qwen2-VL, Qwen2.5-VL and Qwen3-VL make of a prompt, by hand: features, three positions a token, DeepStack."""

from __future__ import annotations

import torch
from naive_text import Column, numbers, words


def read(model, ids, pictures):
    """Image features in the places of image tokens, at the positions of their rows and columns."""
    config = model.config
    image = config.image_token_id
    grids = [tuple(picture["image_grid_thw"][0].tolist()) for picture in pictures]
    columns = [
        Column(embedding, position)
        for embedding, position in zip(
            words(model, ids), positions(ids, image, grids, config.vision_config.spatial_merge_size), strict=True
        )
    ]
    places = iter([place for place, token in enumerate(ids) if token == image])
    for picture in pictures:
        found = model.get_image_features(picture["pixel_values"], picture["image_grid_thw"])
        features, deep = found.pooler_output[0], getattr(found, "deepstack_features", None) or []
        for token, feature in enumerate(features):
            column = columns[next(places)]
            column.embedding = numbers(feature)
            column.deep = [numbers(of_first(layer)[token]) for layer in deep]
    assert next(places, None) is None
    return columns


def of_first(features):
    """The first picture's features, which older versions of transformers give together with those of all others."""
    return features if isinstance(features, torch.Tensor) else features[0]


def positions(ids, image, grids, merge):
    """The position of each token in time, height and width.

    A word is one further than all before it, in each of the three. The image tokens of a picture share one time, and
    their heights and widths count from there; what follows is one further than the largest of these.
    """
    found, place, grids = [], 0, iter(grids)
    token = 0
    while token < len(ids):
        if ids[token] != image:
            found.append((place, place, place))
            place, token = place + 1, token + 1
            continue
        _, rows, columns = next(grids)
        rows, columns = rows // merge, columns // merge
        for row in range(rows):
            for column in range(columns):
                assert ids[token] == image
                found.append((place, place + row, place + column))
                token += 1
        place += max(rows, columns)
    return found
