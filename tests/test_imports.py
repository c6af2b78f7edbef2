"""Who may import whom, room by room: see CONTRIBUTING.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lmms_fixattn"
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))

KNOW_LMMS_EVAL = ("plugin", "lmms_", "task_glue/", "demo/judge")
NEVER_TORCH = (
    "metrics/",
    "report/",
    "data/",
    "task_glue/",
    "sweep_",
    "cli",
    "commands/",
    "plugin",
    "failures",
    "__init__",
)
FORBIDDEN = {
    "plugin": ("lmms_fixattn.",),
    "methods/": ("transformers", "lmms_fixattn.engine.intervention", "lmms_fixattn.scoring", "lmms_fixattn.data"),
    "metrics/": ("lmms_fixattn.data", "lmms_fixattn.methods", "lmms_fixattn.harness.tasks", "transformers"),
    "report/": (
        "lmms_fixattn.methods",
        "lmms_fixattn.harness.tasks",
        "lmms_fixattn.lmms",
        "lmms_fixattn.engine.intervention",
    ),
    "sweep_": ("lmms_fixattn.lmms", "lmms_fixattn.harness.tasks", "lmms_fixattn.engine.intervention"),
    "inspection/": ("lmms_fixattn.lmms", "lmms_fixattn.harness.tasks", "lmms_fixattn.cli"),
    "bench/": ("lmms_fixattn.lmms", "lmms_fixattn.harness.tasks", "lmms_fixattn.cli", "lmms_fixattn.scoring"),
    "intervention": ("lmms_fixattn.scoring", "lmms_fixattn.data", "lmms_fixattn.harness.tasks"),
    "task_glue/": ("lmms_fixattn.methods", "lmms_fixattn.engine.intervention", "lmms_fixattn.lmms"),
    "cli": ("lmms_fixattn.engine.intervention", "lmms_fixattn.lmms", "lmms_fixattn.harness.tasks"),
    "commands/": (
        "lmms_fixattn.engine.intervention",
        "lmms_fixattn.lmms",
        "lmms_fixattn.harness.tasks",
        "lmms_fixattn.report",
    ),
}


def imports(module: str, *, at_import_only: bool = False) -> set[str]:
    """Names of everything that a module imports, outside TYPE_CHECKING blocks."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if typing_only or (at_import_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            skipped |= set(ast.walk(node))
    found = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def starts(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith((prefix.rstrip(".") + ".", prefix)) for prefix in prefixes)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module):
    found = imports(module)
    if not module.startswith(KNOW_LMMS_EVAL):
        assert not {name for name in found if starts(name, ("lmms_eval",))}
    if module.startswith(NEVER_TORCH):
        assert not {name for name in found if starts(name, ("torch", "transformers"))}
    for room, names in FORBIDDEN.items():
        if module.startswith(room):
            at_import = room in ("plugin", "cli", "commands/")  # a command loads what it needs, and only when it runs
            assert not {name for name in imports(module, at_import_only=at_import) if starts(name, names)}


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("methods/") and not m.endswith("__init__")])
def test_methods_never_import_each_other(module):
    shared = {"lmms_fixattn.methods.base", "lmms_fixattn.methods.refine"}
    methods = {name.rpartition(".")[0] for name in imports(module) if name.startswith("lmms_fixattn.methods")}
    assert methods <= shared


def test_importing_the_package_or_its_plugin_loads_nothing_heavy():
    code = (
        "import sys, lmms_fixattn, lmms_fixattn.plugin; lmms_fixattn.plugin.register();"
        "print([m for m in ('torch', 'transformers', 'lmms_eval.tasks', 'numpy', 'pycocotools') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_scoring_needs_no_torch():
    scorers = "lmms_fixattn.scoring.chair, lmms_fixattn.scoring.pope, lmms_fixattn.cli"
    code = f"import sys, {scorers}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_methods_are_listed_without_transformers():
    code = "import sys, lmms_fixattn.methods, lmms_fixattn.harness.sweep_config; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
