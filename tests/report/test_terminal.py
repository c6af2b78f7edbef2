"""Tables and sentences of a terminal, to the character."""

from __future__ import annotations

from lmms_fixattn.report.terminal import WIDTH, table, wrapped


def test_a_table_is_as_wide_as_its_cells_and_breaks_the_long_ones() -> None:
    lines = [("one two three four", "1.5"), ("b", "10.25")]
    assert table(("name", "of\nall"), lines, (9, None), ("left", "right")).splitlines() == [
        "name          of",
        "             all",
        "---------  -----",
        "one two      1.5",
        "three",
        "four",
        "b          10.25",
    ]


def test_a_sentence_is_wrapped_deeper_and_no_word_is_broken() -> None:
    text = wrapped("name: " + "word " * 40 + "x" * 120 + " well-kept")
    first, *others = text.splitlines()
    assert first.startswith("  name: word")
    assert all(line.startswith("    ") and line[4] != " " for line in others)
    assert [line for line in (first, *others) if len(line) > WIDTH] == ["    " + "x" * 120]
    assert "well-kept" in text
