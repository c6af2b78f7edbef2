"""Who may import whom, room by room: see CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lmms_fixattn"
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))

METHOD_FILES = [m for m in MODULES if m.startswith("methods/") and not m.endswith("__init__")]

ROOMS: dict[str, set[str]] = {
    "errors": {"versions"},
    "versions": set(),
    "lru": set(),
    "methods": {"errors"},
    "scoring": {"errors"},
    "data": {"errors", "scoring"},
    "models": {"errors", "versions", "lru", "methods", "data"},
    "engine": {"errors", "versions", "lru", "methods", "models"},
    "report": {"errors", "scoring", "data"},
    "inspection": {"errors", "versions", "methods", "models", "engine", "scoring", "data", "report"},
    "bench": {"errors", "versions", "methods", "models", "engine", "data", "report"},
    "harness.tasks": {"errors", "plugin", "scoring", "data"},
    "harness": {
        *("errors", "versions", "plugin", "methods", "models", "engine", "scoring", "data", "report"),
        "harness.tasks",
    },
    "cli": {
        *("errors", "versions", "methods", "models", "scoring", "data", "report", "inspection", "bench", "harness"),
        "harness.tasks",
    },
    "plugin": {"harness"},
    "": {"plugin", "engine", "methods", "report"},
    "__main__": {"cli"},
    "demo": set(),
}
"""Which other rooms a room may import, for types alone as well; everybody may ask the package for its version."""

ELSEWHERE = {
    "lmms_eval": {"plugin", "harness", "harness.tasks"},
    "torch": {"methods", "models", "engine", "inspection", "bench", "harness", "versions"},
    "transformers": {"models", "engine", "inspection", "bench", "harness"},
}
"""Which rooms may import what is heavy or not ours to depend on."""


def room(module: str) -> str:
    """Return the room of a module, "engine.edit" or "lmms_fixattn.engine.edit"; "" for the package itself."""
    parts = module.removeprefix("lmms_fixattn").strip(".").split(".")
    return "harness.tasks" if parts[:2] == ["harness", "tasks"] else parts[0]


def imports(module: str) -> set[str]:
    """Return the names of everything that a module imports, wherever and for whatever."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module):
    own = room(module.replace("/", ".").replace("__init__", "").rstrip("."))
    ours = {name for name in imports(module) if name.split(".")[0] == "lmms_fixattn"} - {"lmms_fixattn.__version__"}
    assert {room(name) for name in ours} - {own} <= ROOMS[own]
    for package, rooms in ELSEWHERE.items():
        if own not in rooms:
            assert package not in {name.split(".")[0] for name in imports(module)}


def test_no_room_imports_one_that_imports_it():
    order: list[str] = []
    while left := [name for name in ROOMS if name not in order]:
        free = [name for name in left if ROOMS[name] - {"plugin"} <= set(order)]
        assert free, f"a circle among {left}"
        order += free


def test_the_package_has_at_most_six_modules_of_its_own():
    assert len(list(PACKAGE.glob("*.py"))) <= 6


@pytest.mark.parametrize("module", METHOD_FILES)
def test_methods_never_import_each_other(module):
    shared = ("base", "refine", "views", "text_model", "statistics", "formulas")
    ours = {name.split(".")[2] for name in imports(module) if name.startswith("lmms_fixattn.methods.")}
    assert ours <= set(shared)


@pytest.mark.system
def test_importing_the_package_or_its_plugin_loads_nothing_heavy():
    code = (
        "import sys, lmms_fixattn, lmms_fixattn.plugin; lmms_fixattn.plugin.register();"
        "print([m for m in ('torch', 'transformers', 'lmms_eval.tasks', 'numpy', 'pycocotools') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.system
def test_scoring_needs_no_torch():
    scorers = "lmms_fixattn.scoring.chair, lmms_fixattn.scoring.pope, lmms_fixattn.cli"
    code = f"import sys, {scorers}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.system
def test_the_methods_are_listed_without_transformers():
    code = "import sys, lmms_fixattn.methods, lmms_fixattn.harness.sweep_config; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


FAMILIES = re.compile(
    r"llava(?!_fixattn)|clip_?vision|llama|vicuna|qwen|vision_tower|vision_config|feature_layer", re.I
)
"""What names a model family, or a part of one, in code."""


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith(("methods", "models", "demo"))])
def test_only_the_seam_knows_a_model_family(module):
    nodes = list(ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())))
    names = {node.id for node in nodes if isinstance(node, ast.Name)} | imports(module)
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not {name for name in names if FAMILIES.search(name)}
