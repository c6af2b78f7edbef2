"""The library versions that were tried, and a clear word about any other."""

from __future__ import annotations

import inspect
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

TRIED = {
    "lmms-eval": ("0.7.3", "0.7.3"),
    "torch": ("2.11.0", "2.15.0"),
    "transformers": ("5.17.0", "5.23.0"),
}
"""The lowest and the highest version of each library that the tests passed with."""


def installed() -> dict[str, str]:
    """Return the versions that a result depends on: this package, Python and the libraries."""
    libraries = ("lmms-fixattn", *TRIED, "accelerate", "pycocotools", "tokenizers", "pillow", "numpy")
    return {"python": ".".join(map(str, sys.version_info[:3])), **{name: version(name) for name in libraries}}


def described() -> str:
    """Return the installed versions of what this package hooks into, and whether they were tried, in words."""
    words = []
    for library, (lowest, highest) in TRIED.items():
        try:
            found = version(library)
        except PackageNotFoundError:
            words.append(f"{library} (not installed)")
            continue
        if Version(found).release > Version(highest).release:
            state = f"newer than the newest tried, {highest}"
        elif Version(found).release < Version(lowest).release:
            state = f"older than the oldest tried, {lowest}"
        else:
            state = "tried"
        words.append(f"{library} {found} ({state})")
    return ", ".join(words)


def check_versions() -> None:
    """Refuse libraries older than what was tried, warn about newer ones.

    Raises:
        RuntimeError: a library is too old; names it, what is there and what to install.
    """
    for library, (lowest, highest) in TRIED.items():
        found = version(library)
        if Version(found).release < Version(lowest).release:
            raise RuntimeError(
                f'{library} {found} is too old: lmms-fixattn needs {lowest} or newer; pip install "{library}>={lowest}"'
            )
        if Version(found).release > Version(highest).release:
            warnings.warn(
                f"{library} {found} is newer than the newest that lmms-fixattn was tried with ({highest}): "
                "run its tests before you trust the numbers",
                stacklevel=2,
            )


def keeps_images_in_order_under_beams() -> bool:
    """Say whether the installed transformers repeats a prompt's images as one group for its beams.

    Older ones repeat each image on its own, so that a prompt of several images sees the first one several times. The
    difference came with images being encoded before the prompts are repeated, which the forward signature shows.
    """
    from transformers import LlavaForConditionalGeneration

    return "mm_encoder_outputs" in inspect.signature(LlavaForConditionalGeneration.forward).parameters
