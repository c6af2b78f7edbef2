"""Run LLaVA-1.5 with attention interventions under lmms-eval, and score whether it hallucinates less.

Public names load on first use, so that importing the package (which lmms-eval does at every start) costs nothing:

    from lmms_fixattn import intervene, make_method
    with intervene(model, make_method("fixattn", alpha=0.5)):
        model.generate(**inputs)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmms_fixattn import plugin

if TYPE_CHECKING:
    from lmms_fixattn.engine.intervention import intervene as intervene
    from lmms_fixattn.methods import METHODS as METHODS
    from lmms_fixattn.methods import make_method as make_method

__version__ = "0.1.0"

_HOME = {
    "intervene": "lmms_fixattn.engine.intervention",
    "make_method": "lmms_fixattn.methods",
    "METHODS": "lmms_fixattn.methods",
}
__all__ = ["METHODS", "__version__", "intervene", "make_method"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


plugin.add_tasks()
