"""The table of docs/models.md, and its short form in the README, say what the families declare."""

from __future__ import annotations

import re
from pathlib import Path

from lmms_fixattn.methods import make_method
from lmms_fixattn.models.family import FAMILIES, Family, families

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "models.md").read_text()


def rows() -> list[list[str]]:
    table = re.search(r"<!-- families -->(.*?)<!-- end of the families -->", DOC, re.DOTALL)
    assert table
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].split("\n") if line[:1] == "|"]


def declared(family: type[Family]) -> list[str]:
    tower = make_method("fixattn", spatial_ratio=0.05).vision_parts <= family.vision_parts
    said = {True: "yes", False: "no"}
    selection = "by the tower" if tower else "`selection=prompt`"
    reuse = [said[family.shares_prefixes], said[family.keeps_pictures]]
    return [family.name, "yes", "yes", "yes", selection, *reuse, "yes"]


def test_the_table_says_what_the_families_declare() -> None:
    header, _, *found = rows()
    assert header[4:7] == ["token selection", "prefix cache", "picture reuse"]
    assert found == [declared(family) for family in families()]


def test_there_is_a_section_on_every_family_which_names_a_checkpoint() -> None:
    sections = dict(re.findall(r"^## ([^\n]+)\n\n(.+?)(?=\n## |\Z)", DOC, re.MULTILINE | re.DOTALL))
    assert len(families()) == len(FAMILIES)
    for family in families():
        assert f"`{family.checkpoint}`" in sections[family.name]


def test_the_short_form_in_the_readme_says_the_same() -> None:
    found = (ROOT / "README.md").read_text().split("| | LLaVA-1.5 |")[1].split("\n\n")[0]
    lines = [line for line in f"| | LLaVA-1.5 |{found}".splitlines() if "---" not in line]
    names, selections, kept = ([cell.strip() for cell in line.strip("|").split("|")][1:] for line in lines)
    of = {name: place for place, several in enumerate(names) for name in several.split(", ")}
    assert set(of) == {family.name for family in families()}
    for family in families():
        place = of[family.name]
        assert selections[place].startswith(declared(family)[4])
        reuse = "picture" in kept[place], "prompt prefix" in kept[place]
        assert reuse == (family.keeps_pictures, family.shares_prefixes)
