from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape, unescape
from pathlib import Path

import pytest
from browser import open_page, photograph
from PIL import Image

from lmms_fixattn.errors import UserError
from lmms_fixattn.report import plots
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.grids import grids
from lmms_fixattn.report.html import page, write_page

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def written(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(comparison, path)
    return path


def acted(written: Path, script: str) -> str:
    """The DOM of the page after a reader's actions, without its own scripts; nothing may be on the console."""
    path = written.with_name("acted.html")
    text = written.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>")
    path.write_text(text, encoding="utf-8")
    dom, console = open_page(path)
    assert console == []
    return re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)


def choose(**values: str | int) -> str:
    """A script that chooses values of selects, by their ids."""
    return "".join(
        f'{{ const s = document.getElementById("{key}"); s.value = "{value}"; s.dispatchEvent(new Event("change")); }}'
        for key, value in values.items()
    )


def all_as_given() -> str:
    return choose(filter="all", order="given")


def place(dom: str) -> str:
    [found] = re.findall(r'<p id="place"[^>]*>(.*?)</p>', dom)
    return str(found)


def articles(dom: str) -> list[str]:
    return re.findall(r"<article>(.*?)</article>", dom, flags=re.DOTALL)


def test_the_page_opens_without_network_or_error_and_shows_every_caption_of_an_image(
    written: Path, comparison: Comparison
) -> None:
    dom = acted(written, all_as_given())
    assert place(dom) == "Image 101 of chair, 1 of 40"
    shown = articles(dom)
    assert len(shown) == len(comparison.rows)
    for article, row in zip(shown, comparison.rows, strict=True):
        scored = row.captions[0]
        assert f"<h3>{escape(row.name, quote=False)}</h3>" in article
        within = article.partition('class="text">')[2].partition("</p>")[0]
        text = re.sub(r'<span class="hidden">.*?</span>|<[^>]+>', "", within)
        assert unescape(text).strip() == scored["caption"]
        assert within.count('class="unsupported"') == len(scored["hallucinated"])
        assert within.count('class="supported"') == len(scored["objects"]) - len(scored["hallucinated"])
        for name in scored["hallucinated"]:
            assert f'title="{name}: not in the image"' in article
        assert f"{scored['words']} words" in unescape(article)
        missed = sorted(set(scored["truth"]) - set(scored["objects"]))
        assert re.findall(r'<span class="missed">(.*?)</span>', article) == [", ".join(missed)] * bool(missed)


def test_the_console_is_heard(written: Path) -> None:
    path = written.with_name("faulty.html")
    text = written.read_text(encoding="utf-8")
    path.write_text(text.replace("</body>", "<script>missing()</script></body>"), encoding="utf-8")
    assert "missing is not defined" in str(open_page(path).console)
    path.write_text(text.replace("</body>", '<img src="https://example.org/a.png"></body>'), encoding="utf-8")
    assert "Content Security Policy" in str(open_page(path).console)


def test_the_page_names_no_address_outside_itself(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert not re.findall(r"https?:|//[a-z]|@import|file:", re.sub(r"data:image/\w+;base64,[\w+/=]+", "", text))
    assert set(re.findall(r'\b(?:src|href)="(?!#)([^"]*)', text)) == set()


def places(written: Path, *actions: str) -> list[str]:
    """What the page says of its place after each action, one after the other."""
    said = 'said.push(document.getElementById("place").textContent);'
    script = "const said = [];" + "".join(f"{{ {action}; {said} }}" for action in actions)
    dom = acted(written, f"{script} document.body.dataset.said = JSON.stringify(said);")
    [found] = re.findall(r'data-said="([^"]*)"', dom)
    return list(json.loads(unescape(found)))


def test_next_previous_and_ids_move_through_the_images(written: Path) -> None:
    click = 'document.getElementById("{}").click()'.format
    jump = 'const j = document.getElementById("jump"); j.value = "{}"; j.dispatchEvent(new Event("change"))'.format
    script = (
        all_as_given(),
        click("next"),
        click("next"),
        click("previous"),
        jump(120),
        jump(9),
        jump(140),
        click("next"),
    )
    assert places(written, *script) == [
        *(f"Image {image} of chair, {image - 100} of 40" for image in (101, 102, 103, 102, 120)),
        "There is no image 9 here.",
        *["Image 140 of chair, 40 of 40"] * 2,
    ]


def test_filters_and_orders_choose_by_unsupported_objects(written: Path, comparison: Comparison) -> None:
    wrong = [
        [len(set(caption["hallucinated"])) for caption in captions]
        for captions in zip(*(row.captions for row in comparison.rows), strict=True)
    ]
    named = [
        {tuple(sorted(set(caption["hallucinated"]))) for caption in captions}
        for captions in zip(*(row.captions for row in comparison.rows), strict=True)
    ]
    invented = [number for number in range(40) if wrong[number][2]]
    assert 0 < len(invented) < 40
    widest = max(invented, key=lambda number: (max(wrong[number]) - min(wrong[number]), -number))
    most = max(range(40), key=lambda number: (sum(wrong[number]), -number))
    differ = [number for number in range(40) if len(named[number]) > 1]
    furthest = max(differ, key=lambda number: (max(wrong[number]) - min(wrong[number]), -number))
    jump = 'const j = document.getElementById("jump"); j.value = "{}"; j.dispatchEvent(new Event("change"))'.format
    hidden = next(number for number in range(40) if number not in invented)
    assert places(
        written, "", choose(filter=2, order="difference"), choose(filter="all", order="wrong"),
        choose(filter="differ", order="given"), choose(filter=2, order="given"), jump(101 + hidden),
    ) == [
        # A comparison opens on what differs most.
        f"Image {101 + furthest} of chair, 1 of {len(differ)}",
        f"Image {101 + widest} of chair, 1 of {len(invented)}",
        f"Image {101 + most} of chair, 1 of 40",
        f"Image {101 + differ[0]} of chair, 1 of {len(differ)}",
        f"Image {101 + invented[0]} of chair, 1 of {len(invented)}",
        # An image that the filter hides is shown all the same, among all.
        f"Image {101 + hidden} of chair, {hidden + 1} of 40",
    ]  # fmt: skip


def test_a_picture_enlarges_and_shrinks_where_it_is_clicked(written: Path) -> None:
    click = 'document.querySelector("#picture button").click();'
    width = 'document.querySelector("#picture img").clientWidth'
    dom = acted(written, f"const widths = [{width}]; {click} widths.push({width}); {click} widths.push({width});"
                "document.body.dataset.widths = widths;")  # fmt: skip
    small, large, again = map(int, re.findall(r'data-widths="([\d,]+)"', dom)[0].split(","))
    assert small == again
    assert large >= 3 * small


def test_nothing_in_a_caption_or_a_name_becomes_markup(written: Path) -> None:
    dom = acted(written, all_as_given())
    assert "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in dom
    text = written.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<b>wild" not in text
    assert "&lt;b&gt;wild &amp; free&lt;/b&gt;" in text
    assert "Describe &lt;it&gt;." in text


def text_of(part: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", part)))


def test_a_card_a_method_says_the_word_and_the_forest_plot_follows_before_the_figures(
    written: Path, comparison: Comparison
) -> None:
    text = written.read_text(encoding="utf-8")
    found = re.findall(r'<article class="card ([\w-]+)">(.*?)</article>', text, flags=re.DOTALL)
    assert len(found) == len(comparison.rows) - 1
    for (kind, inside), row in zip(found, comparison.rows[1:], strict=True):
        assert kind == row.kinds["captions"].replace(" ", "-")
        assert row.name in text_of(inside)
        assert row.kinds["captions"] in text_of(inside).lower()
        first = row.verdict.partition(" (")[0]
        assert first in text_of(inside)
    assert re.findall(r'<figure id="plot-(\w+)">', text) == list(plots.figures(comparison))
    order = ['id="verdicts"', 'id="plot-truncation"', 'id="figures"', 'id="plot-recall"', 'id="samples"']
    assert sorted(order, key=text.index) == order


def test_tables_notes_and_settings_are_in_the_page(written: Path, comparison: Comparison) -> None:
    text = written.read_text(encoding="utf-8")
    plain = text_of(text)
    for one in grids(comparison):
        assert one.title in plain
        for line in one.lines:
            assert line.name in plain
            assert all(
                part in plain
                for cell in line.cells
                for part in (cell.value.replace("-", "−"), cell.change.replace("-", "−"))
            )
    assert all(note in plain for note in comparison.notes)
    assert "n = 40; baseline base; 95% bootstrap intervals" in plain
    assert "CHAIR_s ↓" in plain
    assert "chair_s" not in plain.partition("Written by")[0].replace("chair_s_", "")
    assert not re.findall(r"[-−]0\.0\b", plain.partition("Written by")[0])


def test_what_runs_recorded_is_said_once_where_they_agree_and_by_run_where_not(comparison: Comparison) -> None:
    assert page(comparison, {}).count("float16") == 1
    records = dict(comparison.records) | {"short": {"lmms_fixattn": {"dtype": "float32"}, "tasks": {}}}
    text = page(replace(comparison, records=records), {})
    assert text.count("float16") == 2
    assert "<b>short</b> float32" in text
    assert "No run recorded" in page(replace(comparison, records={}), {})


@pytest.fixture(scope="module")
def asking(answers_alone: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("answers") / "page.html"
    write_page(answers_alone, path)
    return path


def rows_of(dom: str) -> list[str]:
    inside = dom.partition('<tbody id="answers">')[2].partition("</tbody>")[0]
    return re.findall(r"<tr>(.*?)</tr>", inside, flags=re.DOTALL)


def test_answers_can_be_browsed_by_what_differs_and_what_is_wrong(asking: Path, answers_alone: Comparison) -> None:
    asked = list(zip(*answers_alone.answers["random"].values(), strict=True))
    dom = acted(asking, 'document.getElementById("more").click();')
    # One run says yes and the other no, so that they differ in every question.
    assert "100 of 120 questions shown, of 120 asked" in dom
    assert len(rows_of(dom)) == 100
    for row, (yes, no) in zip(rows_of(dom), asked, strict=False):
        assert f'<th scope="row">{yes.question}<small> random, image {yes.image_id}</small></th>' in row
        assert f'data-label="label"><div>{yes.label}</div>' in row
        assert ("✗ wrong</b> Yes" in row) == (yes.label == "no")
        assert ("✗ wrong</b> No" in row) == (no.label == "yes")
    wrong = acted(asking, choose(which=1))
    count = sum(no.label == "yes" for _, no in asked)
    assert f"{min(50, count)} of {count} questions shown" in wrong
    assert len(rows_of(wrong)) == min(50, count)
    assert all("✗ wrong</b> No" in row for row in rows_of(wrong))
    assert 'id="samples"' not in dom
    assert re.findall(r'<figure id="plot-(\w+)">', dom) == ["pope"]


def test_one_run_reads_as_one_run(comparison: Comparison, tmp_path: Path) -> None:
    alone = replace(comparison, rows=comparison.rows[:1], by_task={})
    write_page(alone, tmp_path / "page.html")
    dom, console = open_page(tmp_path / "page.html")
    assert console == []
    assert "<h1>base</h1>" in dom
    plain = text_of(re.sub(r"<(script|style).*?</\1>", "", dom, flags=re.DOTALL)).partition("Protocol n = 40")[0]
    for furniture in ("against", "baseline", "beyond brevity", "Verdicts", "differ", "every run"):
        assert furniture not in plain.partition("Captions supported")[2]
        assert furniture not in plain.partition("Captions supported")[0]
    assert re.findall(r'<figure id="plot-(\w+)">', dom) == ["position"]
    most = max(len(set(caption["hallucinated"])) for caption in alone.rows[0].captions)
    first = next(one["image_id"] for one in alone.rows[0].captions if len(set(one["hallucinated"])) == most)
    assert place(dom) == f"Image {first} of chair, 1 of 40"


@pytest.mark.parametrize("width", [500, 750, 1280])
def test_nothing_is_wider_than_the_screen(written: Path, width: int) -> None:
    path = written.with_name("measured.html")
    measure = "document.body.dataset.sizes = [innerWidth, document.documentElement.scrollWidth,"
    measure += "...[...document.querySelectorAll('.wide, .plot, .card')].map((part) => part.clientWidth)]"
    text = written.read_text(encoding="utf-8").replace("</body>", f"<script>{measure}</script></body>")
    path.write_text(text, encoding="utf-8")
    found = re.search(r'data-sizes="([\d,]+)"', open_page(path, width=width).dom)
    assert found is not None
    window, content, *parts = map(int, found[1].split(","))
    assert content <= window == width
    assert len(parts) > 8
    assert max(parts) < window


def test_a_picture_of_the_page_shows_marks_of_both_kinds(written: Path, tmp_path: Path) -> None:
    photograph(written, tmp_path / "page.png", 1000, 7000)
    with Image.open(tmp_path / "page.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
    assert {(0xE0, 0xEE, 0xF8), (0xFC, 0xE6, 0xD8)} <= colours


def test_a_path_that_cannot_be_written_is_one_line(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write_page(comparison, tmp_path, {})
