"""Citations: each method has an entry in references.bib, the docs name it, and CITATION.cff agrees with the package."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from lmms_fixattn.cli import main
from lmms_fixattn.methods import METHODS, Method

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
BIB = (ROOT / "lmms_fixattn" / "methods" / "references.bib").read_text(encoding="utf-8")
ENTRIES = [(lines[0], lines[1:-1]) for lines in (text.splitlines() for text in re.findall(r"^@[^@]*?^\}", BIB, re.M))]
"""Of each entry its first line and those of its fields."""
FIELDS = {
    head.partition("{")[2].rstrip(","): dict(re.fullmatch(r"  (\w+) = \{(.+)\},", line).groups() for line in lines)
    for head, lines in ENTRIES
}
"""The fields of each entry by its key; a line that is none fails here."""
DOCS = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
TABLE = re.findall(r"^\| (`.*) \|$", DOCS.partition("## Papers and released code")[2], re.M)
ROWS = {
    name: [cell.strip() for cell in cells]
    for names, *cells in (line.split("|") for line in TABLE)
    for name in re.findall(r"`(\w+)`", names)
}
"""Paper, key, code and commit of each method, as the table under that heading has them."""
CITED = [method for method in METHODS.values() if method.cite]


def test_every_line_of_the_bibliography_is_a_comment_or_of_an_entry_with_a_key_of_its_own() -> None:
    rest = [line for line in re.sub(r"^@[^@]*?^\}$", "", BIB, flags=re.M).splitlines() if line]
    assert [line for line in rest if not line.startswith("% ")] == []
    assert len(FIELDS) == len(ENTRIES) == BIB.count("@") > len(CITED)
    assert all(re.fullmatch(r"@(inproceedings|misc)\{[a-z]+\d{4}[a-z]\w*,", head) for head, _ in ENTRIES)


@pytest.mark.parametrize("key", FIELDS)
def test_an_entry_says_who_wrote_what_when_and_where_it_is(key: str) -> None:
    fields = FIELDS[key]
    assert fields.keys() >= {"title", "author", "year"}
    assert ("eprint" in fields) == ("archivePrefix" in fields) == ("url" not in fields)
    assert all(value.count("{") == value.count("}") for value in fields.values())
    authors = fields["author"].split(" and ")
    assert all(re.fullmatch(r"[^,]+, [^,]+", author) for author in authors), "Surname, Given names"
    assert key.startswith(re.sub(r"\W", "", authors[0].partition(",")[0].lower()) + fields["year"])
    assert ("booktitle" in fields) == (f"@inproceedings{{{key}," in BIB)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_cites_the_paper_that_it_names_as_its_source(method: type[Method]) -> None:
    if not (paper := re.search(r"arXiv:([\d.]+)|(openreview\.net/\S+\b)", method.source)):
        assert (method.source, method.cite) == ("a control of this package", "")
        return
    fields = FIELDS[method.cite]
    assert fields.get("eprint") == paper[1]
    assert fields.get("url") == (paper[2] and f"https://{paper[2]}")


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_docs_name_the_paper_its_key_and_the_released_code_at_the_commit_that_the_docstring_names(
    method: type[Method],
) -> None:
    paper, key, code, commit = ROWS[method.name]
    assert key == (f"`{method.cite}`" if method.cite else "")
    assert not method.cite or paper.partition(", ")[0] in method.source
    repository = method.source.partition("; github.com/")[2]
    assert (code if "/" in code else "") == repository
    about = " ".join((method.__doc__ or "").split())
    assert bool(commit) == bool(repository)
    assert not commit or f"{repository} at {commit.strip('`')}" in about


def test_the_docs_name_every_entry_and_the_file() -> None:
    assert [key for key in FIELDS if f"`{key}`" not in DOCS] == []
    assert "`lmms_fixattn/methods/references.bib`" in DOCS


def test_the_command_ends_with_the_entry_as_it_stands_in_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    for method in CITED:
        assert main(["methods", method.name]) == 0
        entry = capsys.readouterr().out.rpartition("\n\n")[2]
        assert entry.splitlines()[0].endswith(f"{{{method.cite},")
        assert entry in BIB
        assert entry.endswith("\n}\n")
    assert main(["methods", "brief"]) == 0
    assert "@" not in capsys.readouterr().out
    assert main(["methods", "pai", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["cite"] == "liu2024pai"


def test_a_method_of_another_package_shows_its_own_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(METHODS["brief"], "cite", "somebody2026toy")
    assert main(["methods", "brief"]) == 0
    assert capsys.readouterr().out.endswith("\n\ncite: somebody2026toy\n")


def test_the_software_is_cited_as_it_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert "lmms_fixattn/methods/references.bib" in citation.pop("message")
    assert citation == {
        "cff-version": "1.2.0",
        "type": "software",
        "title": project["name"],
        "version": project["version"],
        "license": project["license"],
        "authors": project["authors"],
        "abstract": f"{project['description']}.",
        "keywords": project["keywords"],
    }
