from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape, unescape
from pathlib import Path

import pytest
from browser import open_page, photograph
from PIL import Image

from lmms_fixattn.report import plots, table
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.html import page, write_page
from lmms_fixattn.scoring.files.reading import FileError

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


def place(dom: str) -> str:
    [found] = re.findall(r'<p id="place"[^>]*>(.*?)</p>', dom)
    return str(found)


def articles(dom: str) -> list[str]:
    return re.findall(r"<article>(.*?)</article>", dom, flags=re.DOTALL)


def test_the_page_opens_without_network_or_error_and_shows_every_caption_of_an_image(
    written: Path, comparison: Comparison
) -> None:
    dom = acted(written, "")
    assert place(dom) == "Image 101 of chair, 1 of 40"
    shown = articles(dom)
    assert len(shown) == len(comparison.rows)
    for article, row in zip(shown, comparison.rows, strict=True):
        scored = row.captions[0]
        assert f"<h3>{escape(row.name, quote=False)}</h3>" in article
        text = re.sub(r'<span class="hidden">.*?</span>|<[^>]+>', "", article.partition('class="text">')[2])
        assert unescape(text).strip() == scored["caption"]
        assert article.count('class="unsupported"') == len(scored["hallucinated"])
        assert article.count('class="supported"') == len(scored["objects"]) - len(scored["hallucinated"])
        for name in scored["hallucinated"]:
            assert f'title="{name}: not in the image"' in article
        figures = unescape(article)
        assert f"{scored['words']} words" in figures


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


def test_next_previous_keys_and_ids_move_through_the_images(written: Path) -> None:
    click = 'document.getElementById("{}").click()'.format
    press = 'document.body.dispatchEvent(new KeyboardEvent("keydown", {{key: "{}", bubbles: true}}))'.format
    jump = 'const j = document.getElementById("jump"); j.value = "{}"; j.dispatchEvent(new Event("change"))'.format
    assert places(
        written, click("next"), click("next"), click("previous"), press("ArrowRight"), press("ArrowLeft"), jump(120),
        jump(9), press("ArrowLeft"), jump(140), click("next"), press("ArrowRight"),
    ) == [
        *(f"Image {image} of chair, {image - 100} of 40" for image in (102, 103, 102, 103, 102, 120)),
        "There is no image 9 here.",
        *(f"Image {image} of chair, {image - 100} of 40" for image in (119, 140, 140, 140)),
    ]  # fmt: skip


def test_an_address_opens_an_image(written: Path) -> None:
    dom = open_page(written, "#image=chair%3A107").dom
    assert place(dom) == "Image 107 of chair, 7 of 40"
    assert '<img src="data:image/' in dom


def test_filters_and_orders_choose_by_unsupported_objects(written: Path, comparison: Comparison) -> None:
    wrong = [
        [len(set(caption["hallucinated"])) for caption in captions]
        for captions in zip(*(row.captions for row in comparison.rows), strict=True)
    ]
    named = [
        {tuple(sorted(set(caption["hallucinated"]))) for caption in captions}
        for captions in zip(*(row.captions for row in comparison.rows), strict=True)
    ]
    choose = 'for (const [id, value] of [["filter", "{}"], ["order", "{}"]]) {{ const s = document.getElementById(id);'
    choose += 's.value = value; s.dispatchEvent(new Event("change")); }}'
    invented = [number for number in range(40) if wrong[number][2]]
    assert 0 < len(invented) < 40
    widest = max(invented, key=lambda number: (max(wrong[number]) - min(wrong[number]), -number))
    most = max(range(40), key=lambda number: (sum(wrong[number]), -number))
    differ = [number for number in range(40) if len(named[number]) > 1]
    jump = 'const j = document.getElementById("jump"); j.value = "{}"; j.dispatchEvent(new Event("change"))'.format
    hidden = next(number for number in range(40) if number not in invented)
    assert places(
        written, choose.format(2, "difference"), choose.format("all", "wrong"), choose.format("differ", "given"),
        choose.format(2, "given"), jump(101 + hidden),
    ) == [
        f"Image {101 + widest} of chair, 1 of {len(invented)}",
        f"Image {101 + most} of chair, 1 of 40",
        f"Image {101 + differ[0]} of chair, 1 of {len(differ)}",
        f"Image {101 + invented[0]} of chair, 1 of {len(invented)}",
        # An image that the filter hides is shown all the same, among all.
        f"Image {101 + hidden} of chair, {hidden + 1} of 40",
    ]  # fmt: skip


def test_nothing_in_a_caption_or_a_name_becomes_markup(written: Path) -> None:
    dom = acted(written, "")
    assert "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in dom
    text = written.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<b>wild" not in text
    assert "&lt;b&gt;wild &amp; free&lt;/b&gt;" in text
    assert "Describe &lt;it&gt;." in text


def test_tables_verdicts_notes_and_plots_are_in_the_page(written: Path, comparison: Comparison) -> None:
    plain = unescape(re.sub(r"<[^>]+>", "", re.sub(r"\s+", " ", written.read_text(encoding="utf-8"))))
    for name, verdict in table.verdicts(comparison):
        assert name in plain
        assert verdict in plain
    for section in table.sections(comparison):
        for line in section.lines:
            assert all(cell in plain for cell in line)
    assert table.settings(comparison) in plain
    assert all(note in plain for note in comparison.notes)
    text = written.read_text(encoding="utf-8")
    assert re.findall(r'<figure id="plot-(\w+)">', text) == list(plots.figures(comparison))
    assert text.index('id="verdicts"') < text.index('id="figures"') < text.index('id="samples"')


def test_what_runs_recorded_is_said_once_where_they_agree_and_by_run_where_not(comparison: Comparison) -> None:
    assert page(comparison).count("float16") == 1
    records = dict(comparison.records) | {"short": {"lmms_fixattn": {"dtype": "float32"}, "tasks": {}}}
    text = page(replace(comparison, records=records))
    assert text.count("float16") == 2
    assert "<b>short</b> float32" in text
    assert "No run recorded" in page(replace(comparison, records={}))


def test_a_comparison_of_answers_alone_has_a_page_without_plots_and_captions(
    answers_alone: Comparison, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    write_page(answers_alone, path)
    dom, console = open_page(path)
    assert console == []
    assert "POPE" in dom
    assert 'id="samples"' not in dom
    assert 'id="plots"' not in dom


def test_the_page_fits_a_telephone_and_tables_and_plots_scroll_by_themselves(written: Path) -> None:
    path = written.with_name("measured.html")
    measure = "document.body.dataset.sizes = [innerWidth, document.documentElement.scrollWidth,"
    measure += "...[...document.querySelectorAll('.wide')].map((part) => part.clientWidth)]"
    text = written.read_text(encoding="utf-8").replace("</body>", f"<script>{measure}</script></body>")
    path.write_text(text, encoding="utf-8")
    found = re.search(r'data-sizes="([\d,]+)"', open_page(path, width=500).dom)
    assert found is not None
    window, content, *scrolling = map(int, found[1].split(","))
    assert content <= window == 500
    assert len(scrolling) > 5
    assert max(scrolling) < window


def test_a_picture_of_the_page_shows_marks_of_both_kinds(written: Path, tmp_path: Path) -> None:
    photograph(written, tmp_path / "page.png", 1000, 7000)
    with Image.open(tmp_path / "page.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
    assert {(0xE0, 0xEE, 0xF8), (0xFC, 0xE6, 0xD8)} <= colours


def test_a_path_that_cannot_be_written_is_one_line(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        write_page(comparison, tmp_path, {})
