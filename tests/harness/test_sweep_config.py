"""A sweep's configuration: what it means, and that whatever is wrong with it is said before anything runs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lmms_fixattn import METHODS, make_method
from lmms_fixattn.errors import UserError
from lmms_fixattn.harness.sweep_config import MODEL_ARGS, Cell, SweepPlan, read_plan, shipped
from lmms_fixattn.methods import Method
from lmms_fixattn.methods.fixattn import FixAttn
from lmms_fixattn.report.paper_tables import LAYOUTS
from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.chair import make_analyser
from lmms_fixattn.scoring.files.reading import read_captions, read_ground_truth

HEAD = "model: {pretrained: demo}\ntasks: [chair_demo]\n"


def read(tmp_path: Path, text: str, limit: int | None = None) -> SweepPlan:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return read_plan(str(path), limit)


def test_cells_are_those_listed_and_then_every_combination_of_the_grids(tmp_path: Path) -> None:
    plan = read(
        tmp_path,
        "model: {pretrained: here, batch_size: 4, conversation: pai}\n"
        "tasks: chair_demo\n"
        "limit: 7\n"
        "baseline: plain\n"
        "cells:\n"
        "  - {name: a, method: pai, layers: 2-3, alpha: '0.4'}\n"
        "  - {name: plain, method: vanilla, published: {f1: 75.9}}\n"
        "grid:\n"
        "  - {method: fixattn, alpha: [0.1, 1], beta: 0.3, head_modulation: [off, top]}\n"
        "  - {method: [pai, vanilla]}\n",
    )
    fixattn = [
        ("fixattn alpha 0.1 head_modulation off", {"alpha": 0.1, "head_modulation": "off"}),
        ("fixattn alpha 0.1 head_modulation top", {"alpha": 0.1, "head_modulation": "top"}),
        ("fixattn alpha 1 head_modulation off", {"alpha": 1, "head_modulation": "off"}),
        ("fixattn alpha 1 head_modulation top", {"alpha": 1, "head_modulation": "top"}),
    ]
    assert [(cell.name, cell.method) for cell in plan.cells] == [
        ("a", make_method("pai", layers=(2, 3), alpha=0.4)),
        ("plain", make_method("vanilla")),
        *((name, make_method("fixattn", beta=0.3, **varied)) for name, varied in fixattn),
        ("pai", make_method("pai")),
        ("vanilla", make_method("vanilla")),
    ]
    assert plan.cells[1].published == {"f1": 75.9}
    assert plan.cells[2].given == {"alpha": 0.1, "beta": 0.3, "head_modulation": "off"}
    assert (plan.name, plan.tasks, plan.limit, plan.baseline, plan.layout) == (
        "mine",
        ("chair_demo",),
        7,
        "plain",
        None,
    )
    assert plan.model == {"pretrained": "here", "batch_size": 4, "conversation": "pai"}


def test_the_command_lines_limit_wins_and_the_first_cell_is_the_baseline(tmp_path: Path) -> None:
    text = HEAD + "limit: 7\ngrid: {method: [pai, vanilla]}\n"
    plan = read(tmp_path, text, limit=3)
    assert (plan.limit, plan.baseline) == (3, "pai")
    with pytest.raises(UserError, match=r"limit: expected a whole number .*got 0"):
        read(tmp_path, text, limit=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cells: [{name: a, method: pia}]", r"cells, entry 1 \(a\): unknown method 'pia' \(did you mean 'pai'\?\)"),
        ("cells: [{name: a, method: pai, alhpa: 1}]", r"\(a\): method pai has no .*'alhpa' \(did you mean 'alpha'\?\)"),
        ("cells: [{name: a, method: pai, alpha: much}]", r"\(a\): pai: alpha must be a number >= 0, got 'much'"),
        ("cells: [{name: a, method: pai, alpha: -1}]", r"\(a\): pai: alpha must be a number >= 0, got -1"),
        ("cells: [{name: a, method: [pai]}]", r"\(a\): method must be one of vanilla, .*got \['pai'\]"),
        ("cells: [{name: a}]", "entry 1: method is missing"),
        ("cells: [{method: pai}]", "entry 1: name is missing"),
        ("cells: {name: a, method: pai}", "cells: expected a list of mappings"),
        ("cells: [pai]", "cells, entry 1: expected a mapping .*got 'pai'"),
        ("cells: []", r"expected cells: \(a list\) or grid:"),
        ("", r"expected cells: \(a list\) or grid:"),
        ("cells: [{name: a, method: pai}, {name: a, method: vanilla}]", "two cells are named alike: 'a' and 'a'"),
        ("cells: [{name: a b, method: pai}, {name: A_b, method: pai}]", "two cells are named alike: 'a b' and 'A_b'"),
        ("cells: [{name: a/b, method: pai}]", "a name has letters, .*got 'a/b'"),
        ("cells: [{name: a=b, method: pai}]", "a name has letters, .*got 'a=b'"),
        ("cells: [{name: .., method: pai}]", r"a name has letters, .*got '\.\.'"),
        ("cells: [{name: a, method: pai, published: {chairs: 1}}]", "published: key: unknown 'chairs'.*'chair_s'"),
        ("cells: [{name: a, method: pai, published: {f1: high}}]", "published f1 must be a number, got 'high'"),
        ("grid: {method: fixattn, alpha: []}", "grid, entry 1: alpha is an empty list"),
        ("grid: {alpha: [1, 2]}", "grid, entry 1: method is missing"),
        ("grid: {name: a, method: pai}", "cells of a grid are named by what varies"),
        ("grid: {method: pai, alpha: [1, 1]}", "two cells are named alike: 'pai alpha 1'"),
        ("grid: 7", "grid: expected a mapping or a list"),
        ("cells: [{name: a, method: pai}]\nbaseline: b", "baseline: unknown 'b'.*expected one of a"),
        ("cells: [{name: a, method: pai}]\nlayout: tabel1", r"layout: unknown 'tabel1' \(did you mean 'table1'\?\)"),
        ("cells: [{name: a, method: pai}]\nlimit: 0.5", "limit: expected a whole number .*got 0.5"),
        ("cells: [{name: a, method: pai}]\nlimit: true", "limit: expected a whole number .*got True"),
        ("cell: [{name: a, method: pai}]", r"key: unknown 'cell' \(did you mean 'cells'\?\)"),
        ("cells: [{name: a, method: pai, alpha: 1, alpha: 2}]", "alpha is given twice"),
        ("cells: [{name: a", "no YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"(?s)^{tmp_path}/mine.yaml: .*{message}"):
        read(tmp_path, HEAD + text)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("tasks: [chair_demo]", "model is missing"),
        ("model: {pretrained: demo}", "tasks is missing"),
        ("model: demo\ntasks: [chair_demo]", "model: expected a mapping"),
        ("model: {batch_size: 4}\ntasks: [chair_demo]", "model: pretrained is missing"),
        ("model: {pretraind: x}\ntasks: [chair_demo]", "model: key: unknown 'pretraind'.*'pretrained'"),
        ("model: {pretrained: x, method: pai}\ntasks: [chair_demo]", "model: key: unknown 'method'"),
        ("model: {pretrained: [x]}\ntasks: [chair_demo]", "model: pretrained must be a word or a number"),
        ("model: {pretrained: x}\ntasks: []", r"tasks: expected a list of .*got \[\]"),
        ("model: {pretrained: x}\ntasks: [a, b, a]", "tasks: a is named twice"),
        ("model: {pretrained: x}\ntasks: [pope_demo]\nlayout: table1", "layout: table1 shows CHAIR; .*got pope_demo"),
        ("- 1", "the configuration: expected a mapping"),
        ("1: 2", "the configuration: expected words for keys, got 1"),
    ],
)
def test_what_holds_for_all_cells_is_checked(tmp_path: Path, head: str, message: str) -> None:
    cells = "\ncells: [{name: a, method: pai}]" if not head.startswith("- ") else ""
    with pytest.raises(UserError, match=message):
        read(tmp_path, head + cells)


def test_a_configuration_that_is_nowhere_is_said_with_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tabel1: no such file .*did you mean 'table1'.*demo_table1"):
        read_plan("tabel1")
    with pytest.raises(UserError, match=r"there.yaml: no such file; shipped configurations: demo, demo_heads"):
        read_plan(str(tmp_path / "there.yaml"))


@pytest.mark.system
def test_the_command_refuses_a_configuration_in_one_line_before_it_loads_lmms_eval(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(HEAD + "cells: [{name: a, method: pai, alpha: much}]")
    code = (
        "import sys; from lmms_fixattn.cli import main;"
        f"print(main(['sweep', {str(tmp_path / 'bad.yaml')!r}]), 'lmms_eval' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["1", "False"]
    assert done.stderr.startswith(f"lmms-fixattn sweep: error: {tmp_path}/bad.yaml: cells, entry 1 (a): pai: alpha")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_sweep_sets_every_argument_of_the_model_but_the_method() -> None:
    from lmms_fixattn.harness.model import FixattnModel
    from lmms_fixattn.models.arguments import own_names

    assert set(MODEL_ARGS) == set(own_names(FixattnModel)) - {"method"}
    assert set(MODEL_ARGS) <= set(inspect.signature(FixattnModel).parameters)


VARIED = {"table2": "alpha", "table3": "beta", "table4": "local_ratio", "table5": "spatial_ratio"}
PAPER = {
    "alpha": [0.1, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9],
    "beta": [0.1, 0.2, 0.3, 0.4, 0.5],
    "local_ratio": [0.1, 0.15, 0.2, 0.25, 0.3],
    "spatial_ratio": [0.05, 0.1, 0.15, 0.2, 0.25, 0.3],
}


def test_there_is_a_configuration_of_each_table_for_both_models() -> None:
    tables = sorted([*LAYOUTS, *(f"demo_{layout}" for layout in LAYOUTS)])
    assert shipped() == sorted(["demo", "heads", "demo_heads", "tokens", "demo_tokens", *tables])
    for name in tables:
        plan = read_plan(name)
        baseline = next(cell for cell in plan.cells if cell.name == plan.baseline)
        assert plan.layout == name.removeprefix("demo_")
        assert baseline.method == make_method("vanilla")
        demo = name.startswith("demo_")
        assert plan.model["pretrained"] == ("demo" if demo else "llava-hf/llava-1.5-7b-hf")
        assert plan.tasks[0] == ("chair_demo" if demo else "chair_coco")
        assert demo or plan.model["conversation"] == "pai"
        assert plan.limit is None


@pytest.mark.parametrize("prefix", ["", "demo_"])
def test_ablations_vary_one_value_around_the_papers_settings(prefix: str) -> None:
    for table, parameter in VARIED.items():
        _, *cells = read_plan(prefix + table).cells
        assert [getattr(cell.method, parameter) for cell in cells] == PAPER[parameter]
        assert {cell.method.name for cell in cells} == {"fixattn"}
        fixed = {"alpha": 0.7, "beta": 0.3 if table == "table2" else 0.4, "local_ratio": 0.25, "gamma": 1.1}
        for cell in cells:
            value = getattr(cell.method, parameter)
            assert cell.method == METHODS["fixattn"](**{**fixed, parameter: value})


@pytest.mark.parametrize("name", ["heads", "tokens"])
def test_the_controls_of_heads_and_tokens_are_the_same_for_both_models(name: str) -> None:
    plan, demo = read_plan(name), read_plan(f"demo_{name}")
    assert (plan.baseline, demo.baseline) == ("original", "original")
    assert plan.cells[0].method == demo.cells[0].method == make_method("vanilla")
    assert (plan.model["conversation"], plan.tasks, demo.tasks) == ("pai", ("chair_coco",), ("chair_demo",))
    for cell, small in zip(plan.cells, demo.cells, strict=True):
        assert cell.name == small.name
        assert {**cell.given, "g_max": None} == {**small.given, "g_max": None}


@pytest.mark.parametrize(("name", "heads"), [("heads", 32), ("demo_heads", 4)])
def test_heads_are_weighed_at_equal_mean_gain(name: str, heads: int) -> None:
    sensitivity = torch.rand(7, heads, generator=torch.Generator().manual_seed(0)) ** 4
    kinds = []
    for cell in read_plan(name).cells[1:]:
        method = cell.method
        assert isinstance(method, FixAttn)
        off = method.head_modulation == "off"
        mean = 1.0 if off else float(method.head_gains(sensitivity).mean(dim=-1).max())
        share = 0.5 if cell.name.endswith("half") else 1.0
        assert (method.alpha * mean, method.beta * mean) == pytest.approx((0.7 * share, 0.4 * share))
        kinds.append(method.head_modulation)
    assert kinds == ["off", "proportional", "top"] * 2


def test_table_1_shows_the_papers_figures() -> None:
    figures = {cell.name: tuple(cell.published.values()) for cell in read_plan("table1").cells}
    assert figures == {
        "original": (46.2, 13.8, 75.9),
        "PAI": (24.6, 6.8, 74.7),
        "FixAttn": (17.6, 4.0, 71.8),
        "FixAttn with spatial": (15.4, 4.8, 69.8),
    }


def test_the_ablations_show_what_was_published_and_nothing_where_the_paper_prints_a_dash() -> None:
    rows: dict[Method, dict[str, float]] = {}
    for table, parameter in VARIED.items():
        _, *cells = read_plan(table).cells
        assert [cell.name for cell in cells] == [f"fixattn {parameter} {value}" for value in PAPER[parameter]]
        for cell in cells:
            if cell.name in ("fixattn beta 0.5", "fixattn spatial_ratio 0.3"):
                assert not cell.published
                continue
            assert list(cell.published) == ["chair_s", "chair_i", "f1", "words"]
            assert rows.setdefault(cell.method, dict(cell.published)) == cell.published
    assert len(rows) == 19
    for cell in read_plan("table1").cells[2:]:  # rows of tables 4 and 5, under other names
        assert rows[cell.method].items() >= cell.published.items()
    assert not any(cell.published for name in shipped() if "demo" in name for cell in read_plan(name).cells)


@pytest.mark.system
def test_the_released_captions_have_the_published_figures_by_our_scorer(reference: Path) -> None:
    truth = read_ground_truth(reference / "chair" / "ground_truth_all.json.gz")
    analyser = make_analyser("lexicon")
    published = {_released_name(cell): cell.published for name in VARIED for cell in read_plan(name).cells[1:]}
    at_hand = [reference / "chair" / name for name in published if (reference / "chair" / name).is_file()]
    assert len(at_hand) == 8  # two further files there are of no table
    for path in at_hand:
        captions = read_captions(path)
        rows = [chair.score_caption(one.image_id, one.text, truth[one.image_id], analyser) for one in captions]
        figures = chair.corpus_figures(rows)
        expected = json.loads(path.with_name(path.name.replace(".jsonl.gz", ".expected.json")).read_text())
        for ours, theirs in {"chair_s": "CHAIRs", "chair_i": "CHAIRi", "f1": "F1", "words": "Len"}.items():
            stated = published[path.name][ours]
            assert figures[ours] == pytest.approx(stated, abs=0.1)
            assert stated == pytest.approx(expected[theirs], abs=0.0501)


def _released_name(cell: Cell) -> str:
    """Return what the reference data calls the released captions of a cell."""
    given = cell.given
    name = f"r{given['local_ratio']}_a{given['alpha']}_b{given['beta']}_g{given['gamma']}"
    return name + (f"_s{given['spatial_ratio']}" if "spatial_ratio" in given else "") + ".jsonl.gz"
