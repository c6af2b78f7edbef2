"""Read what several prompts of a batch begin with once: the words before the image, and the image."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache

from lmms_fixattn.attention import EDIT, Edit, kept_keys


class SharedPrefixes:
    """A prefill that computes equal beginnings of a batch's prompts once, and hands each prompt its keys and values.

    Every method leaves rows up to the end of the first image as they are, so what a beginning up to there comes to
    depends on nothing else. The remaining columns of all prompts are then one chunk on a filled cache; since prompts
    are padded on the left, it starts where the longest prompt's beginning ends.

    Attributes:
        asked: prompts that held an image.
        computed: prompts, or beginnings in place of several, that the layers were run on up to the image's end.
    """

    def __init__(self) -> None:
        self.asked = self.computed = 0

    @contextmanager
    def shared(self, model: Any, prefixes: Sequence[tuple[Hashable, int]]) -> Iterator[None]:
        """Share beginnings in the first prefill inside the block, which gives states of its last columns only.

        Args:
            model: a LlavaForConditionalGeneration; where it is in an ``intervene`` block, that is the outer one.
            prefixes: of each prompt of that prefill, what tells its beginning from others, and how many tokens that
                has up to the end of its first image; 0 for a prompt without image. ``generate`` may repeat prompts for
                beams or samples.
        """
        waiting = [prefixes]

        def share(text: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return (args, self._share(text, waiting.pop(), kwargs)) if waiting else None

        handle = model.model.language_model.register_forward_pre_hook(share, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _share(self, text: Any, prefixes: Sequence[tuple[Hashable, int]], kwargs: dict[str, Any]) -> dict[str, Any]:
        embeds, mask, past = kwargs["inputs_embeds"], kwargs.get("attention_mask"), kwargs.get("past_key_values")
        rows, width = embeds.shape[:2]
        with_image = sum(length > 0 for _, length in prefixes)
        self.asked += with_image
        prefixes = [prefix for prefix in prefixes for _ in range(rows // len(prefixes))]
        lengths = dict(prefixes)
        order = list(lengths)
        shares = len(order) < rows and past is not None and not int(past.get_seq_length())
        if shares and (mask is None or isinstance(mask, torch.Tensor)):
            kept = kept_keys(mask, width)
            padding = [0] * rows if kept is None else (width - kept[:, 0].sum(dim=1)).tolist()
            split = min(pad + length for pad, (_, length) in zip(padding, prefixes, strict=True))
            split = min(split, width - 2)  # one token on a filled cache would be taken for a step
            if split > min(padding):
                self.computed += sum(length > 0 for length in lengths.values())
                return self._begin(
                    text, Begun(embeds, padding, [order.index(key) for key, _ in prefixes], split), kwargs
                )
        self.computed += with_image
        return kwargs

    @staticmethod
    def _begin(text: Any, begun: Begun, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Read the beginnings into the answer's cache; return the arguments of what is left of the prefill."""
        edit: Edit | None = kwargs.get(EDIT)
        reading = {layer for part in edit.parts if part.method.reads_inputs for layer in part.layers} if edit else set()
        handles = [
            text.layers[layer].register_forward_pre_hook(partial(begun.note_input, layer), with_kwargs=True)
            for layer in reading
        ]
        own = DynamicCache(config=text.config)
        try:
            # forward itself, past the text model's hooks: for an intervention this is no prompt of its own.
            text.forward(inputs_embeds=begun.beginnings, past_key_values=own, use_cache=True)
        finally:
            for handle in handles:
                handle.remove()
        for number, layer in enumerate(own.layers):
            keys, values = (kept.transpose(1, 2) for kept in (layer.keys, layer.values))
            kwargs["past_key_values"].update(
                begun.laid_out(keys).transpose(1, 2), begun.laid_out(values).transpose(1, 2), number
            )
        if edit:
            edit.begun = begun
        rest = {"inputs_embeds": begun.embeds[:, begun.split :]}
        if kwargs.get("position_ids") is not None:
            rest["position_ids"] = kwargs["position_ids"][:, begun.split :]
        if (mask := kwargs.get("attention_mask")) is not None and mask.dim() == 4:  # made for a cache of fixed length
            rest["attention_mask"] = mask[:, :, begun.split :]
        return {**kwargs, **rest}


class Begun:
    """The columns of a batch of prompts that were read as beginnings, each once, before the rest of the prefill.

    Args:
        embeds: what the text model would read, [rows, prompt, hidden size].
        padding: how many columns of padding each row starts with.
        groups: which beginning each row has; they are numbered by their first rows.
        split: the number of columns.
    """

    def __init__(self, embeds: torch.Tensor, padding: Sequence[int], groups: Sequence[int], split: int) -> None:
        self.embeds = embeds
        self.split = split
        device = embeds.device
        pad = torch.tensor(padding, device=device)[:, None]
        self._group = torch.tensor(groups, device=device)[:, None]
        # Keys and values of padding may be any token's, since they are masked.
        self._place = (torch.arange(split, device=device) - pad).clamp_min(0)
        first = torch.tensor([groups.index(group) for group in range(max(groups) + 1)], device=device)[:, None]
        # A beginning ends where those of its rows that are padded least need it to; what others read behind it is
        # left of no use by the causal mask.
        columns = pad[first[:, 0]] + torch.arange(split - min(padding), device=device)
        self.beginnings = embeds[first, columns.clamp_max(embeds.shape[1] - 1)]
        self._inputs: dict[int, torch.Tensor] = {}

    def laid_out(self, values: torch.Tensor) -> torch.Tensor:
        """Lay values of the beginnings, [beginnings, tokens, ...], out over rows and columns: [rows, split, ...]."""
        return values[self._group.to(values.device), self._place.to(values.device)]

    def note_input(self, layer: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inputs[layer] = args[0] if args else kwargs["hidden_states"]

    def whole_input(self, layer: int, rest: torch.Tensor) -> torch.Tensor:
        """Return the states that enter a layer in all columns of the prompts, given those of the last columns."""
        return torch.cat([self.laid_out(self._inputs[layer]), rest], dim=1)
