"""`lmms-fixattn bench` on a tiny shape: its table, its JSON, what it refuses."""

from __future__ import annotations

import json
import statistics
from functools import wraps

import pytest
from transformers import LlavaForConditionalGeneration

from lmms_fixattn import cli
from lmms_fixattn.bench.measure import Timing
from lmms_fixattn.bench.released import NAMES
from lmms_fixattn.engine.compiled_decode import generate_growing
from lmms_fixattn.methods import METHODS
from lmms_fixattn.models.transformers_api import cache_of

pytestmark = pytest.mark.system

QUICK = ("--model", "tiny", "--tokens", "3", "--rounds", "3", "--device", "cpu")
FIGURES = {
    *("method", "settings", "batch", "prefill_ms", "step_ms", "tokens_per_second", "peak_gib", "prefill_ratio"),
    *("step_ratio", "bandwidth_share", "rival", "speedup", "compilations", "seconds"),
}


def run(*arguments: object) -> int:
    return cli.main(["bench", *map(str, arguments)])


@pytest.mark.system
def test_its_json_has_every_figure_and_what_it_was_measured_on(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert run(*QUICK, "--method", "pai", "fixattn,gamma=1", "--batch", 1, 2, "--json", path) == 0
    found = json.loads(path.read_text())
    named = ["vanilla", "pai", "fixattn, gamma=1", "vanilla again", *NAMES.values()]
    assert [row["method"] for row in found["rows"]] == named * 2
    assert [row["batch"] for row in found["rows"]] == [1] * 6 + [2] * 4 + [1] * 2
    assert {"device", "cores", "threads", "system", "versions"} <= set(found["machine"])
    assert {"torch", "transformers", "lmms-fixattn"} <= set(found["machine"]["versions"])
    assert found["model"]["prompt_tokens"] == 25 + 64
    assert found["plan"] == vars(Timing(new_tokens=3, rounds=3))
    by_name = {(row["method"], index // 6): row for index, row in enumerate(found["rows"])}
    for (name, place), row in by_name.items():
        assert set(row) == FIGURES
        assert row["peak_gib"] is None  # of a CPU nothing that would bear the name is measured
        assert len(row["seconds"]["step"]) == len(row["seconds"]["prefill"]) == 3
        assert row["step_ms"] == pytest.approx(1000 * statistics.median(row["seconds"]["step"]))
        assert row["tokens_per_second"] == pytest.approx(1000 * row["batch"] / row["step_ms"])
        beside = by_name["vanilla", place]
        if row["batch"] != beside["batch"]:
            assert row["prefill_ratio"] is row["step_ratio"] is None
            continue
        for part, ratio in (("prefill", row["prefill_ratio"]), ("step", row["step_ratio"])):
            both = zip(row["seconds"][part], beside["seconds"][part], strict=True)
            assert ratio == pytest.approx(statistics.median(mine / other for mine, other in both))
        if name in NAMES.values():
            assert row["rival"] is row["speedup"] is None
            continue
        assert row["rival"] == NAMES[name == "pai"]  # which alone has a second forward a token
        steps = zip(row["seconds"]["step"], by_name[row["rival"], place]["seconds"]["step"], strict=True)
        assert row["speedup"] == pytest.approx(row["batch"] / statistics.median(m / o for m, o in steps))
    out = capsys.readouterr().out
    assert "0.332 million parameters, float32, sdpa; 89 prompt tokens, 25 of them an image's" in out
    assert "growing cache, 3 rounds of 3 decode steps" in out
    assert out.count("released-style loop, refine") == 2


@pytest.mark.system
def test_a_bar_counts_the_measurements_of_each_batch_size_with_the_time_left(capsys, monkeypatch):
    shown = []

    def bar(items, title, **settings):
        shown.append((len(items), title, settings["unit"]))
        return items

    monkeypatch.setattr("tqdm.tqdm", bar)
    assert run(*QUICK, "--method", "pai,gamma=1", "--batch", 1, 2, "--without-released") == 0
    # Vanilla, the method and vanilla again, in a round to warm up and three that count.
    assert shown == [(12, f"batch size {size} ({size} of 2)", " measurements") for size in (1, 2)]
    assert capsys.readouterr().err.startswith("lmms-fixattn: making tiny and measuring the memory's bandwidth\n")


def test_the_share_of_the_limit_is_the_least_time_over_the_time_taken(tmp_path):
    path = tmp_path / "bench.json"
    assert run(*QUICK, "--method", "pai,gamma=1", "--batch", 2, "--without-released", "--json", path) == 0
    found = json.loads(path.read_text())
    # Of the shape tiny, by hand: hidden 64, inner 96, 4 layers, 4 heads of 16, 1000 words, float32.
    weights = 4 * (4 * 64 * 64 + 3 * 64 * 96 + 2 * 64) + 64 + 1000 * 64
    read = 4 * (weights + 2 * (64 + 2 * 64 * 4 * (89 + 2)))
    for row in found["rows"]:
        least = read / found["bandwidth"]["limit"]
        assert row["bandwidth_share"] == pytest.approx(least / (row["step_ms"] / 1000))
        assert row["rival"] is None


@pytest.mark.system
@pytest.mark.parametrize("model", ["tiny", "demo"])
def test_every_method_can_be_measured(model, tmp_path):
    path = tmp_path / "bench.json"
    options = ("--model", model, "--tokens", 2, "--rounds", 1, "--batch", 2, "--device", "cpu", "--json", path)
    assert run(*options, "--method", "all") == 0
    named = {row["method"].partition(",")[0] for row in json.loads(path.read_text())["rows"]}
    assert {*METHODS, "vanilla again"} <= named


@pytest.mark.system
def test_a_static_cache_is_measured_where_asked_for(monkeypatch):
    caches = []
    forward = LlavaForConditionalGeneration.forward

    @wraps(forward)
    def noting(self, *args, **kwargs):
        caches.append(type(cache_of(self, kwargs)).__name__)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlavaForConditionalGeneration, "forward", noting)
    assert run(*QUICK, "--method", "pai,gamma=1", "--batch", 2, "--without-released", "--static") == 0
    assert set(caches) == {"FixedCache"}


def test_compiling_needs_the_static_cache():
    with pytest.raises(ValueError, match="needs the static cache"):
        Timing(compiled=True)
    plan = Timing(static=True, compiled=True)
    assert plan.warm_up > Timing(static=True).warm_up
    assert plan.generating().__self__.compiled
    assert not Timing(static=True).generating().__self__.compiled
    assert Timing().generating() is generate_growing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "tny"), "did you mean 'tiny'"),
        (("--model", "tiny", "--method", "fixatn"), "did you mean 'fixattn'"),
        (("--model", "tiny", "--method", "pai,gama=1"), "did you mean 'gamma'"),
        (("--model", "tiny", "--dtype", "float61"), "did you mean 'float16'"),
        (("--model", "tiny", "--attention", "spda"), "did you mean 'sdpa'"),
        (("--model", "tiny", "--batch", "1", "--tokens", "5000"), "leaves room for 4006 decode steps, not 5000"),
        (("--device", "gpu"), "device must be cpu, cuda"),
    ],
)
def test_what_cannot_be_meant_is_one_line(options, message, capsys):
    assert run(*options) == 1
    err = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(err) == 1
    assert message in err[0]


def test_a_family_without_a_released_style_loop_is_measured_without_and_told(capsys, tmp_path):
    path = tmp_path / "bench.json"
    quick = ("--model", "qwen3-vl-small", *QUICK[2:])
    assert run(*quick, "--method", "pai", "--batch", 1, "--json", path) == 0
    assert "measured without the released-style loops: a released-style loop is at hand" in capsys.readouterr().err
    found = json.loads(path.read_text())
    assert [row["method"] for row in found["rows"]] == ["vanilla", "pai", "vanilla again"]
    assert found["plan"]["released"] is False
