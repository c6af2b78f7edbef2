from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmms_fixattn import cli
from lmms_fixattn.errors import UserError
from lmms_fixattn.report import plot_evidence
from lmms_fixattn.report.compare import compare
from lmms_fixattn.report.evidence import (
    Evidence,
    evidence_json,
    fetch_commands,
    gather,
    read_files,
    read_index,
)
from lmms_fixattn.report.evidence_tables import markdown, text
from lmms_fixattn.report.runs import read_run
from lmms_fixattn.scoring import bootstrap, chair
from lmms_fixattn.scoring.files.reading import read_ground_truth
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES

LEXICON = chair.make_analyser()
DOCS = Path(__file__).parents[2] / "docs"
IMAGES = range(1, 41)
TRUTH = {image: frozenset(random.Random(image).sample(CATEGORIES[:10], 4)) for image in IMAGES}


def captions(seed: int, most: int, images: range = IMAGES) -> bytes:
    draw = random.Random(seed)
    rows = []
    for image in images:
        names = draw.choices(CATEGORIES[:10], k=draw.randint(1, most))
        rows.append({"image_id": image, "caption": ". ".join(f"There is a {name}" for name in names) + "."})
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def honest(images: range = IMAGES) -> bytes:
    """Captions of nothing but true objects."""
    rows = [
        {"image_id": image, "caption": f"A {sorted(TRUTH[image])[0]} and a {sorted(TRUTH[image])[1]}."}
        for image in images
    ]
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


FILES = {
    "one/base.jsonl": captions(1, 7),
    "one/short.jsonl": captions(2, 3),
    "one/honest.jsonl": honest(),
    "two/base.jsonl": captions(3, 5),
    "two/other.jsonl": captions(4, 5),
}
INDEX: list[dict[str, Any]] = [
    {"group": "one", "name": "short", "file": "one/short.jsonl", "method": "pai", "note": "cut short"},
    {"group": "one", "name": "base", "file": "one/base.jsonl", "method": "baseline", "note": "greedy"},
    {"group": "two", "name": "base", "file": "two/base.jsonl", "method": "baseline"},
    {"group": "one", "name": "a=0.1 honest", "file": "one/honest.jsonl", "method": "deco"},
    {"group": "two", "name": "other", "file": "two/other.jsonl", "method": "vcd"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def written(folder: Path, index: list[dict[str, Any]]) -> Path:
    path = folder / "index.json"
    path.write_text(json.dumps(index))
    return path


def made(folder: Path, index: list[dict[str, Any]] = INDEX, draws: int = 200) -> Evidence:
    entries = read_index(written(folder, index))
    return gather(entries, read_files(entries, folder), TRUTH, LEXICON, draws=draws)


def test_every_group_is_the_comparison_of_its_files_with_its_own_baseline(folder: Path) -> None:
    evidence = made(folder)
    assert [group.name for group in evidence.groups] == ["one", "two"]
    one, two = evidence.groups
    assert (one.baseline.name, two.baseline.name) == ("base", "base")
    assert [line.entry.name for line in one.lines] == ["short", "a=0.1 honest"]
    runs = {
        name: replace(read_run(str(folder / f"one/{name}.jsonl")), name=name) for name in ("base", "short", "honest")
    }
    alone = compare(list(runs.values()), "base", TRUTH, LEXICON, draws=200)
    for line, name in zip(one.lines, ("short", "honest"), strict=True):
        (row,) = (row for row in alone.rows if row.name == name)
        assert line.row.columns == row.columns
        assert line.beyond == line.row.vs_truncation == row.vs_truncation
        assert line.holm == row.holm["beyond"]
    words = {line.entry.name: line.word for group in evidence.groups for line in group.lines}
    assert words == {"short": "not shown", "a=0.1 honest": "better", "other": "not shown"}


def test_holm_of_all_is_over_the_methods_of_all_groups(folder: Path) -> None:
    evidence = made(folder)
    lines = [line for group in evidence.groups for line in group.lines]
    assert evidence.methods == 3
    assert [line.holm_of_all for line in lines] == bootstrap.holm([line.beyond.p for line in lines])
    assert any(line.holm_of_all > line.holm for line in lines)


def test_what_is_better_by_itself_alone_is_called_so_and_few_images_are_called_too_few(folder: Path) -> None:
    better = next(line for line in made(folder).groups[0].lines if line.stands == "better")
    assert replace(better, holm=0.2).word == "better, alone"
    few = range(1, 30)
    for name, content in (("base", captions(1, 7, few)), ("short", captions(2, 3, few)), ("honest", honest(few))):
        (folder / f"one/{name}.jsonl").write_bytes(content)
    assert {line.word for line in made(folder).groups[0].lines} == {"too few images"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"method": "pai"},
            r"group 'two' needs one file of method 'baseline' and others beside it, not 0 \(none\) among 2",
        ),
        ({"group": "three"}, r"the group 'three' needs one .*not 1 \(base\) among 1 files"),
        ({"name": "other"}, r"entry 5: a second 'other' in the group 'two'; name them apart"),
        ({"file": ""}, r"entry 3: 'file' must be text, not ''"),
        ({"file": "../base.jsonl"}, r"'file' must lie under the index's folder, not at '../base.jsonl'"),
        ({"sha265": "0"}, r"'sha265' is none of the keys .*did you mean 'sha256'"),
        ({"lines": "40"}, r"'lines' must be how many captions the file has, not '40'"),
        ({"repository": "a/b"}, r"repository, commit, path go together; only repository is there"),
        ({"method": None}, r"entry 3: 'method' must be text, not None"),
    ],
)
def test_an_index_of_another_form_is_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    index = [{**entry, **change} if entry["file"] == "two/base.jsonl" else entry for entry in INDEX]
    with pytest.raises(UserError, match=message):
        read_index(written(folder, index))


def test_an_index_says_what_it_lacks(folder: Path) -> None:
    with pytest.raises(UserError, match=r"entry 1: no key 'method'; a file needs group, name, file, method"):
        read_index(written(folder, [{"group": "a", "name": "b", "file": "c"}]))
    with pytest.raises(UserError, match="no files; expected a list of"):
        read_index(written(folder, []))
    with pytest.raises(UserError, match=r"not 1 \(base\) among 1 files"):
        read_index(written(folder, INDEX[2:3]))


def test_a_file_must_be_the_one_that_the_index_names(folder: Path) -> None:
    digest = hashlib.sha256(FILES["one/short.jsonl"]).hexdigest()
    index = [{**INDEX[0], "sha256": digest, "lines": 40}, *INDEX[1:]]
    before = evidence_json(made(folder, index))
    # Gzipped, it is the same file.
    path = folder / "one/short.jsonl"
    path.with_name("short.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert evidence_json(made(folder, index)) == before
    other = FILES["one/short.jsonl"].replace(b"There", b"Their", 1)
    path.write_bytes(other)
    found = hashlib.sha256(other).hexdigest()
    with pytest.raises(UserError, match=f"short.jsonl: not the released file: expected sha256 {digest}, got {found}"):
        made(folder, index)
    with pytest.raises(UserError, match=r"short.jsonl: expected 41 captions, got 40"):
        made(folder, [{**INDEX[0], "lines": 41}, *INDEX[1:]])
    path.write_text('{"question": "A dog?", "label": "yes", "answer": "yes"}\n')
    with pytest.raises(UserError, match=r"short.jsonl: expected captions, and it holds none"):
        made(folder, INDEX)


def test_nothing_is_left_out(folder: Path) -> None:
    (folder / "two/other.jsonl").write_bytes(captions(4, 5, range(2, 41)))
    with pytest.raises(UserError, match="group 'two': base and other caption different images: 40 and 39, of which 39"):
        made(folder)
    (folder / "two/other.jsonl").unlink()
    with pytest.raises(UserError, match=r"1 of 5 files are not in .*, the first is two/other.jsonl$"):
        made(folder)


def test_the_commands_that_fetch_the_files_name_repository_commit_and_path(folder: Path) -> None:
    index = [{**entry, "repository": "a/b", "commit": "c0ffee", "path": "x y/z#1.jsonl"} for entry in INDEX]
    entries = read_index(written(folder, index))
    first = shlex.split(next(fetch_commands(entries, Path("my files"))))
    assert first[-3:] == [
        "-o",
        "my files/one/short.jsonl",
        "https://raw.githubusercontent.com/a/b/c0ffee/x%20y/z%231.jsonl",
    ]
    with pytest.raises(UserError, match=r"short.jsonl: the index does not say its repository"):
        list(fetch_commands(read_index(written(folder, INDEX)), folder))


def test_tables_hold_every_method_and_every_baseline(folder: Path) -> None:
    evidence = made(folder)
    table = markdown(evidence)
    for group in evidence.groups:
        assert f"### {group.name}" in table
        for line in group.lines:
            (found,) = (row for row in table.splitlines() if row.startswith(f"| {line.entry.name} "))
            for said in (line.beyond.chair_s.signed, line.beyond.cut, f"| {line.word} ", f"{line.holm:.3f}"):
                assert said in found
    assert "| short (cut short) " in table
    assert table.count("| base (baseline)") == 2
    assert "Baseline: base (greedy); n = 40" in table
    barred = made(folder, [{**INDEX[0], "name": "a|b"}, *INDEX[1:]])
    (row,) = (row for row in markdown(barred).splitlines() if row.startswith("| a\\|b (cut short) "))
    assert len(re.findall(r"(?<!\\)\|", row)) == 13
    shown = text(evidence)
    assert max(map(len, shown.splitlines()[:-1])) <= 100
    assert "3 methods, each against the baseline of its own group" in shown


def test_the_picture_shows_every_interval_and_its_word(folder: Path) -> None:
    evidence = made(folder)
    panels = plot_evidence.plot(evidence).axes
    assert [axes.get_title("left") for axes in panels] == [
        "one: against base (greedy), n = 40",
        "two: against base, n = 40",
    ]
    colours = {}
    for axes, group in zip(panels, evidence.groups, strict=True):
        for drawn, words, line in zip(axes.containers, axes.texts, group.lines, strict=True):
            (bar,) = drawn[2][0].get_segments()
            assert list(bar[:, 0]) == pytest.approx([line.beyond.chair_s.low, line.beyond.chair_s.high])
            assert words.get_text().endswith(line.word)
            colours[line.word] = drawn[0].get_color()
    assert colours["better"] != colours["not shown"]
    assert "over all 3 methods, 1 of these 1 is left." in panels[0].figure.get_suptitle()
    png = plot_evidence.draw(evidence, "png")
    assert png == plot_evidence.draw(evidence, "png")
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.info["Description"] == plot_evidence.described(evidence)
    assert "<svg" in plot_evidence.draw(evidence, "svg").decode()


def test_the_command_writes_tables_numbers_and_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = written(folder, INDEX)
    truth = folder / "truth.json"
    truth.write_text(json.dumps({image: sorted(words) for image, words in TRUTH.items()}))
    given = ["evidence", str(index), "--ground-truth", str(truth), "--draws", "200", "--output", str(folder / "out")]
    assert cli.main(given) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert text(made(folder)) in out
    assert out.rstrip().endswith(
        f"written: {', '.join(str(folder / 'out' / f'evidence.{end}') for end in ('md', 'json', 'png', 'svg'))}"
    )
    assert (folder / "out/evidence.md").read_text() == markdown(made(folder))
    assert json.loads((folder / "out/evidence.json").read_text()) == json.loads(json.dumps(evidence_json(made(folder))))
    assert cli.main(["evidence", str(index), "--files", str(folder / "out"), "--ground-truth", str(truth)]) == 1
    assert "5 of 5 files are not in" in capsys.readouterr().err


@pytest.fixture(scope="module")
def released(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """The shipped index on the files beside the checkout; FixAttn's hold the released captions in another form."""
    if not (reference / "captions").is_dir():
        pytest.skip("no released captions of other groups beside the checkout")
    folder = tmp_path_factory.mktemp("released")
    for group in ("adaiat", "opera", "less_is_more", "deco", "halc"):
        (folder / group).symlink_to(reference / "captions" / group)
    (folder / "fixattn").symlink_to(reference / "chair")
    entries = [
        replace(entry, sha256="" if entry.group == "FixAttn" else entry.sha256)
        for entry in read_index(DOCS / "evidence" / "index.json")
    ]
    truth = read_ground_truth(reference / "chair" / "ground_truth_all.json.gz")
    return gather(entries, read_files(entries, folder), truth, LEXICON)


@pytest.mark.system
def test_the_shipped_table_and_picture_are_those_of_the_released_captions(released: Evidence) -> None:
    page = (DOCS / "evidence.md").read_text(encoding="utf-8")
    block = page.partition("<!-- lmms-fixattn evidence docs/evidence/index.json -->\n\n")[2].partition(
        "\n<!-- end -->"
    )[0]
    assert block == markdown(released)
    with Image.open(DOCS / "images" / "evidence.png") as picture:
        assert picture.info["Description"] == plot_evidence.described(released)
    assert (DOCS / "images" / "evidence.png").stat().st_size < 200_000
    shipped = json.loads((DOCS / "evidence" / "evidence.json").read_text(encoding="utf-8"))
    found = json.loads(json.dumps(evidence_json(released)))
    assert numbers(shipped) == pytest.approx(numbers(found), abs=1e-9)
    assert shipped["groups"][0]["comparison"]["rows"][0].keys() == found["groups"][0]["comparison"]["rows"][0].keys()


def numbers(found: Any) -> list[float]:
    """Every number of a JSON value, in order."""
    if isinstance(found, dict):
        return [number for key in found for number in numbers(found[key])]
    if isinstance(found, list):
        return [number for one in found for number in numbers(one)]
    return [found] if isinstance(found, int | float) and not isinstance(found, bool) else []


@pytest.mark.system
def test_what_the_page_says_in_words_is_what_the_table_shows(released: Evidence, reference: Path) -> None:
    lines = {(group.name, line.entry.name): line for group in released.groups for line in group.lines}
    assert len(lines) == 22
    assert sum(line.row.differences["chair_s"].below_zero for line in lines.values()) == 14
    better = {name for name, line in lines.items() if line.stands == "better"}
    assert better == {("Less is more", "selective EOS, trained"), ("DeCo", "DeCo")}
    assert not any(line.stands == "worse" for line in lines.values())
    assert {round(lines[name].holm_of_all, 3) for name in better} == {0.168, 0.088}
    assert all(lines[name].holm < 0.05 for name in better)
    eos = lines["Less is more", "selective EOS, trained"].row
    assert eos.length_matched is not None
    page = " ".join((DOCS / "evidence.md").read_text(encoding="utf-8").split())
    assert f"of equal *length* have its CHAIR_s as well ({eos.length_matched.signed}), at 4 points less recall" in page
    # DeCo against greedy decoding of the same images.
    truth = read_ground_truth(reference / "chair" / "ground_truth_all.json.gz")
    folder = reference / "captions"
    runs = [read_run(f"greedy={folder / 'opera/greedy.jsonl.gz'}"), read_run(f"deco={folder / 'deco/deco.jsonl.gz'}")]
    row = compare(runs, "greedy", truth, LEXICON).rows[1]
    assert row.vs_truncation is not None
    delta = row.vs_truncation.chair_s
    for said in (
        f"DeCo's CHAIR_s is not told apart ({row.differences['chair_s'].signed})",
        f"recall lower ({row.differences['recall'].signed})",
        f"by {delta.value:.1f} points [{delta.low:.1f}, {delta.high:.1f}]",
    ):
        assert said in page
    assert np.isfinite([line.beyond.chair_s.smallest_fall or 0.0 for line in lines.values()]).all()
