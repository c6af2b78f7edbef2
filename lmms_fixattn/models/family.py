"""The seam: what differs between families of vision-language models, and nothing else does.

A family is one class in one file of this package, found by the ``model_type`` of a checkpoint's config.json. The
rest of the package asks it for the parts of a model, for what a picture is to it, and for what it cannot do.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from lmms_fixattn.methods.text_model import TextModel
from lmms_fixattn.models.transformers_api import EngineError, attention_in_use, check_transformers, inside

if TYPE_CHECKING:
    from lmms_fixattn.methods.base import Method
    from lmms_fixattn.methods.formulas.branches import Inputs
    from lmms_fixattn.models.vision_watch import VisionWatch

FAMILIES = {
    "llava": "lmms_fixattn.models.llava:Llava",
    "llava_next": "lmms_fixattn.models.llava_next:LlavaNext",
    "qwen2_vl": "lmms_fixattn.models.qwen2_5_vl:Qwen2VL",
    "qwen2_5_vl": "lmms_fixattn.models.qwen2_5_vl:Qwen25VL",
    "qwen3_vl": "lmms_fixattn.models.qwen3_vl:Qwen3VL",
}
"""Where the class of each family is, by ``model_type``."""

Picture = dict[str, torch.Tensor]
"""What a model is given of one picture: arguments of its forward call."""


class Family:
    """A family of models, for the configuration of one of them.

    What is here holds for vision-language models of transformers that write image features into the places of image
    tokens, in front of one text model; a family overrides what is otherwise.

    Args:
        config: the transformers configuration of a model.
    """

    name: ClassVar[str]
    """As people write it."""
    checkpoint: ClassVar[str]
    """A checkpoint on the hub, for messages."""
    model_class: ClassVar[Any]
    """The class of transformers with the language modelling head."""
    tower_path: ClassVar[str] = "model.vision_tower"
    """Where the vision tower is."""
    projector_path: ClassVar[str] = "model.multi_modal_projector"
    """Where the module is that makes image features of the tower's states."""
    picture_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    """The arguments of the model that tell of pictures."""
    image_mark: ClassVar[str] = "<image>"
    """The token whose places in the prompt the image features take."""
    further_marks: ClassVar[tuple[str, ...]] = ()
    """Other tokens that tell of pictures: like the mark, no text of a task may hold them."""
    written_image: ClassVar[str] = "<image>"
    """What the chat template writes for an image: the mark, and what stands around it."""
    forms: ClassVar[tuple[str, ...]] = ("default",)
    """The forms of prompts (``prompts.py``) that models of the family were trained or published with."""
    vision_parts: ClassVar[frozenset[str]] = frozenset()
    """The fields of VisionAttention that can be read from the vision tower."""
    without_parts: ClassVar[str] = ""
    """Why others cannot."""
    keeps_pictures: ClassVar[bool] = False
    """Whether a picture's states in the tower can be kept for the next prompt that holds it (``vision_cache.py``)."""
    shares_prefixes: ClassVar[bool] = True
    """Whether prompts' equal prefixes can be read once (``prefix_cache.py``)."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def check_config(self) -> None:
        """See to it that prompts and pictures can be written for such a model.

        Raises:
            ValueError: they cannot, for a reason that the message says, as a predicate of the checkpoint.
        """

    @property
    def text_config(self) -> Any:
        """The configuration of the text model."""
        return self.config.get_text_config()

    @property
    def text_model(self) -> TextModel:
        """What constants are published for."""
        return TextModel.of(self.text_config, self.config.model_type)

    @property
    def image_token_id(self) -> int:
        return int(self.config.image_token_id)

    @property
    def positions(self) -> int:
        """The number of positions of the text model."""
        return int(self.text_config.max_position_embeddings)

    # The parts of a model

    def text(self, model: Any) -> Any:
        """Return the text model: with ``layers``, ``norm`` and ``embed_tokens``.

        Raises:
            EngineError: it is not where it was in the versions that were tried; so for the other parts.
        """
        text = inside(model, "model.language_model")
        for name in ("layers", "norm", "embed_tokens", "config"):
            inside(text, name)
        return text

    def tower(self, model: Any) -> Any:
        """Return the vision tower."""
        return inside(model, self.tower_path)

    def tower_layers(self, model: Any) -> Sequence[Any]:
        """Return the layers of the vision tower, in the order in which they run; none where they are not known."""
        tower = self.tower(model)
        encoder = getattr(getattr(tower, "vision_model", tower), "encoder", None)
        return getattr(encoder, "layers", ())

    def projector(self, model: Any) -> Any:
        """Return the module that makes image features of the tower's states."""
        return inside(model, self.projector_path)

    def check(self, model: Any) -> None:
        """See to it that a model can carry an intervention, before anything is installed.

        Raises:
            EngineError: a name that the engine needs is missing.
        """
        self.tower(model)
        inside(model, "model.get_image_features")
        check_transformers(self.text(model), type(model), type(model.model))

    def use_attention(self, model: Any, name: str) -> None:
        """Let the text model attend by a registered function.

        Raises:
            EngineError: it does not take effect.
        """
        model.set_attn_implementation({"text_config": name})
        text = self.text(model)
        used = {attention_in_use(text), *(attention_in_use(layer.self_attn) for layer in text.layers)}
        if used != {name}:
            raise EngineError(
                f"expected every layer to attend by {name} after set_attn_implementation, got {sorted(used)}"
            )

    def refuse(self, method: Method) -> None:
        """Refuse a method that needs what models of this family do not have.

        Raises:
            ValueError: it does; says what and why.
        """
        for part in method.parts:
            if missing := sorted(part.vision_parts - self.vision_parts):
                raise ValueError(
                    f"{part.name} selects image tokens by {', '.join(missing)} of the vision tower, which {self.name} "
                    f"does not have: {self.without_parts}"
                )

    # Pictures

    def picture(self, image_processor: Any, image: Any) -> Picture:
        """Return what the model is given of an RGB picture (PIL), by the checkpoint's image processor."""
        found = image_processor(images=[image], return_tensors="pt")
        return {name: found[name] for name in self.picture_inputs}

    def image_tokens(self, picture: Picture) -> int:
        """Return how many image tokens a picture takes in the prompt."""
        raise NotImplementedError

    def usual_image_tokens(self, image_processor: Any) -> int:
        """Return how many a picture takes, as far as that can be said before it is opened."""
        raise NotImplementedError

    def together(self, pictures: Sequence[Picture]) -> Picture:
        """Return the pictures of a batch, in order, as arguments of the model."""
        return {name: torch.cat([picture[name] for picture in pictures]) for name in pictures[0]}

    def beside(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return further arguments that the model needs with token ids, [rows, columns], and pictures."""
        return {}

    def shown(self, picture: Picture, image_processor: Any) -> torch.Tensor:
        """Return the picture as the model sees it, resized and cropped: float32 [height, width, 3] in 0..1."""
        raise NotImplementedError

    def grid(self, picture: Picture) -> tuple[int, int]:
        """Return the rows and columns of the image's patches, those of :meth:`shown`."""
        raise NotImplementedError

    def random_picture(self, draw: torch.Generator) -> Picture:
        """Return a picture of noise, of the size that the configuration names."""
        raise NotImplementedError

    def noise(self, pictures: Mapping[str, Any], draw: torch.Generator) -> torch.Tensor:
        """Return noise of the shape of the pictures' ``pixel_values``, the same for every image, in any batch."""
        return torch.randn(pictures["pixel_values"].shape[1:], generator=draw)

    # Prompts

    def picture_columns(self, ids: torch.Tensor) -> torch.Tensor:
        """Return where a prompt's picture is, with what stands around it: bool [rows, columns]."""
        return ids == self.image_token_id

    def instruction_start(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the column before which a further instruction stands: behind what begins a sequence, [rows, 1]."""
        bos = self.text_config.bos_token_id
        begins = torch.zeros_like(mask) if bos is None else ids == bos
        return (mask & ~begins).long().argmax(dim=1, keepdim=True)

    # Image features that enter further layers of the text model

    def added(self, kwargs: Mapping[str, Any], is_image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return them as ``Inputs.added`` has them, from the arguments of the text model's prefill."""
        return ()

    def added_features(self, output: Any) -> tuple[torch.Tensor, ...]:
        """Return them for all images one after the other, from what ``get_image_features`` gave."""
        return ()

    def as_arguments(self, inputs: Inputs) -> dict[str, Any]:
        """Return the arguments by which the text model takes ``inputs.added``."""
        return {}

    # The vision tower

    def per_token(self, per_patch: torch.Tensor, pictures: Mapping[str, Any]) -> torch.Tensor:
        """Lay values of patches out over image tokens; 0 at tokens that are no patch.

        Args:
            per_patch: [pictures, patches], as in VisionAttention.
            pictures: the arguments of ``get_image_features``.

        Returns:
            Of all images' tokens one after the other, of any shape.
        """
        return per_patch

    def real_patches(self, pictures: Mapping[str, Any]) -> torch.Tensor | None:
        """Return which patches are image tokens, bool [pictures, patches] as in VisionAttention; None: all are."""
        return None

    def watch(self, model: Any, parts: frozenset[str]) -> AbstractContextManager[VisionWatch]:
        """Read parts of the tower's attention from every run of it inside the block.

        Raises:
            ValueError: the tower has not what they are read from.
        """
        raise ValueError(f"the vision tower of {self.name} is not read: {self.without_parts}")

    def kept_layers(self) -> list[int]:
        """Return which of the tower's hidden states the image features are made of (``keeps_pictures``)."""
        raise NotImplementedError

    def keeps_images_in_order_under_beams(self) -> bool:
        """Say whether the installed transformers repeats a prompt's images as one group for its beams.

        Older ones repeat each image on its own, so that a prompt of several images sees the first one several times.
        The difference came with images being encoded before the prompts are repeated, which the signature shows.
        """
        return "mm_encoder_outputs" in inspect.signature(self.model_class.forward).parameters


@cache
def _load(model_type: str) -> type[Family]:
    module, _, name = FAMILIES[model_type].partition(":")
    return getattr(import_module(module), name)  # type: ignore[no-any-return]


def families() -> list[type[Family]]:
    """Return the families that are known."""
    return [_load(model_type) for model_type in FAMILIES]


def expected() -> str:
    """Say which checkpoints are expected."""
    known = [f"{family.name}, such as {family.checkpoint}" for family in families()]
    return f"expected a checkpoint in the transformers layout of {'; or of '.join(known)}"


def family_of(config: Any) -> Family:
    """Return the family of a transformers configuration.

    Raises:
        ValueError: it is of none that is known, said as a predicate of the checkpoint.
    """
    model_type = getattr(config, "model_type", None)
    if model_type not in FAMILIES:
        raise ValueError(f"is a {model_type} model")
    return _load(model_type)(config)


def family_of_model(model: Any) -> Family:
    """Return the family of a loaded model.

    Raises:
        ValueError: it is no model, or of no family that is known.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type in FAMILIES and isinstance(model, _load(model_type).model_class):
        return _load(model_type)(model.config)
    classes = " or ".join(f"{family.model_class.__name__} ({family.checkpoint})" for family in families())
    raise ValueError(f"expected a {classes}, got {type(model).__name__}")


def text_model(model: Any) -> Any:
    """Return the text model of a model of any family: with ``layers``, ``norm`` and ``embed_tokens``."""
    return family_of_model(model).text(model)


def to_model(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return inputs on a model's device, pixels in its data type."""
    return {
        name: tensor.to(model.device, model.dtype) if name == "pixel_values" else tensor.to(model.device)
        for name, tensor in inputs.items()
    }
