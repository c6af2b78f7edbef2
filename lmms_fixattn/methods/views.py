"""What a method sees: the rows that it edits, what their columns are, the vision tower's attention, a step to guide.

The engine fills these in and hands them to the hooks of ``methods/base.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import pad


@dataclass
class VisionAttention:
    """What a run of the tower told: float32 [pictures, patches] each, or None for a part that nobody asked for.

    A picture is what the tower reads at once: an image, or one of the tiles that a family cuts it into.
    """

    cls_first: Any = None
    """Attention of CLS to each patch in the first layer, summed over heads."""
    cls_second_last: Any = None
    """The same in the second-last layer."""
    received_first: Any = None
    """Attention that each patch receives in the first layer, averaged over heads, summed over all queries."""
    released_first: Any = None
    """What FixAttn's released code sums instead: every query's own total, 1 up to rounding, starting at CLS."""
    real: torch.Tensor | None = None
    """bool [pictures, patches], False at patches that are no image token; None: all are."""
    fingerprint: Any = None
    """int64 [images] on the CPU: a number that a picture's pixels decide, for what is drawn anew for each image."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a batch of prompts are, by row; a prompt without image has none of the three kinds.

    Of several images, text between them counts as after: it follows the first. Padding counts as before, which is of
    no effect, since masked keys get no weight. For a cache of fixed length the columns go on behind the prompt, up to
    that length, so that a compiled step sees the same shapes after every prompt.
    """

    image: torch.Tensor
    """bool [rows, 1, columns]."""
    before: torch.Tensor
    """bool [rows, 1, columns]: before the first image token, the beginning-of-sequence token included."""
    after: torch.Tensor
    """bool [rows, 1, columns]: the prompt's text after the first image token."""
    generated: torch.Tensor
    """bool [rows, 1, columns]: behind the prompt, if it has an image."""
    has_image: torch.Tensor
    """bool [rows, 1, 1]."""
    gain: torch.Tensor
    """float32 [rows, 1, columns]: what ``Method.select`` gave each image token; 0 elsewhere, and without one."""

    @classmethod
    def lay_out(cls, is_image: torch.Tensor, token_gains: torch.Tensor | None = None) -> Columns:
        """Tell the columns apart; arguments and errors are those of :func:`column_gains`."""
        image, gain = is_image[:, None], column_gains(is_image, token_gains)[:, None]
        started = image.cumsum(dim=-1) > 0
        has_image = started[..., -1:]
        return cls(image, ~started & has_image, started & ~image, torch.zeros_like(image), has_image, gain)

    def widened(self, columns: int) -> Columns:
        """Return the same prompts with columns of generated text behind them, ``columns`` in all."""
        more = (0, columns - self.image.shape[-1])
        wide = {name: pad(getattr(self, name), more) for name in ("image", "before", "after", "gain")}
        generated = pad(self.generated, more, value=True) & self.has_image
        return Columns(**wide, generated=generated, has_image=self.has_image.clone())

    @property
    def device(self) -> torch.device:
        return self.image.device

    def to(self, device: torch.device) -> Columns:
        return Columns(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def of(self, row: int) -> Columns:
        """Return one row's columns, [1, 1, prompt] each."""
        return Columns(*(getattr(self, name)[row : row + 1] for name in self.__dataclass_fields__))


def column_gains(is_image: torch.Tensor, token_gains: torch.Tensor | None) -> torch.Tensor:
    """Lay gains of image tokens out over the prompts' columns.

    Images and image tokens come in the same order: by row, then by position. Where ``generate`` repeated each prompt
    for its beams or samples after the images were encoded, each image serves all copies of its row.

    Args:
        is_image: bool [rows, prompt], True at image tokens; rows may hold none, one or several images.
        token_gains: of all image tokens, one image after the other, of any shape; None: no token is selected.

    Returns:
        float32 [rows, prompt], 0 outside the image tokens.

    Raises:
        ValueError: the number of image tokens fits the number of images in no way.
    """
    if token_gains is None:
        return torch.zeros(is_image.shape, dtype=torch.float32, device=is_image.device)
    expected, found = token_gains.numel(), int(is_image.sum())
    copies = found // max(expected, 1)
    if found != copies * expected or (copies and is_image.shape[0] % copies):
        raise ValueError(
            f"the prompts hold {found} image tokens, but images of {expected} were encoded: give every <image> its "
            "picture and the processor's own number of image tokens"
        )
    if not copies:
        return torch.zeros(is_image.shape, dtype=torch.float32, device=is_image.device)
    originals = is_image[::copies]
    gains = torch.zeros(originals.shape, dtype=torch.float32, device=is_image.device)
    gains.masked_scatter_(originals, token_gains.to(gains))
    return gains.repeat_interleave(copies, dim=0)


@dataclass
class Rows:
    """Query rows of one layer, as a method's hooks see them: the newest row of every prompt of the batch.

    In the prefill of a method with ``edits_text_rows`` further ones follow, one prompt at a time: all other rows of its
    text after the image.
    """

    scores: torch.Tensor
    """Scaled scores before mask and softmax, float32 [rows, heads, keys]; ``edit_scores`` changes them in place."""
    keep: torch.Tensor | None
    """bool [rows, 1, keys], False at masked keys; None if every key counts."""
    columns: Columns
    """What the columns are, [rows or 1, 1, columns] each; keys behind them are of the generated text."""
    prefill: bool
    layer: int
    observed: dict[int, torch.Tensor] = field(default_factory=dict)
    """What ``Method.observe_input`` returned when the prompt entered each layer: [rows or 1, ...]."""
    prefill_stats: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def prompt(self) -> int:
        """The number of columns: the prompt's, padding included; more on a cache of fixed length."""
        return self.columns.image.shape[-1]

    def generated(self) -> torch.Tensor:
        """Return which keys are of the answer to a prompt with an image: bool [rows or 1, 1, keys]."""
        behind = self.columns.has_image.expand(-1, -1, self.scores.shape[-1] - self.prompt)
        return torch.cat([self.columns.generated, behind], dim=-1)

    def after_image(self) -> torch.Tensor:
        """Return which keys are text after the image, the prompt's and the answer's: bool [rows or 1, 1, keys]."""
        behind = self.scores.shape[-1] - self.prompt
        return self.generated() | pad(self.columns.after, (0, behind))

    def amplify(self, gain: torch.Tensor) -> None:
        """Add gain * |score| to the scores of the columns; gain broadcasts over [rows, heads, columns]."""
        prompt = self.scores[..., : self.prompt]
        prompt.addcmul_(prompt.abs(), gain.to(prompt.dtype))

    def weights(self) -> torch.Tensor:
        """Return the weights after softmax, with the scores as they are now: [rows, heads, keys]."""
        return masked_softmax(self.scores, self.keep)

    def image_mass(self) -> torch.Tensor:
        """Return each head's attention weight on the image, with the scores as they are now: [rows, heads]."""
        return (self.weights()[..., : self.prompt] * self.columns.image).sum(dim=-1)

    def once_at_prefill(self, measure: Callable[[Rows], torch.Tensor]) -> torch.Tensor:
        """Return what ``measure`` gave for this layer's newest rows at prefill; measures now if this is it."""
        if self.layer not in self.prefill_stats:
            self.prefill_stats[self.layer] = measure(self)
        return self.prefill_stats[self.layer]


def masked_softmax(scores: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    """Return softmax over the kept keys; masked ones get weight 0, whatever was added to their scores."""
    return (scores if keep is None else scores.masked_fill(~keep, -torch.inf)).softmax(dim=-1)


@dataclass(frozen=True)
class Step:
    """What a method's ``guide`` knows of the step, beside the scores."""

    index: int
    """Tokens of the answer so far."""
    branch: Any = None
    """The contrastive branch's logits, float32 [rows, vocabulary]; None where the method has none."""
    states: Any = None
    """The newest state of each row as it enters each of the method's early layers, [layers, rows, hidden size]."""
    norm: Callable[[torch.Tensor], torch.Tensor] = lambda states: states
    """The norm that follows the last layer."""
    head: Callable[[torch.Tensor], torch.Tensor] = lambda states: states
    """What turns states into logits."""

    def early(self, *, normed: bool, every: int = 1) -> torch.Tensor:
        """Return the logits that states give before the rest of the layers, float32 [layers, rows, vocabulary].

        Args:
            normed: with the norm that the last layer's output passes, or without it.
            every: of the method's early layers, in order, the first and each so many behind it.
        """
        states = self.states[::every]
        return self.head(self.norm(states) if normed else states).float()
