from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from lmms_fixattn.scoring import pope

ANSWERS = [
    # answer, official, pai, exact, unparsed
    ("yes", "yes", "yes", "yes", False),
    ("No", "no", "no", "no", False),
    (" NO \n", "yes", "no", "no", False),
    ("NO, it is absent", "yes", "no", None, False),
    ("No, there is no car.", "no", "no", None, False),
    ("Yes, there is. It is not red.", "yes", "no", None, False),
    ("There isn't one.", "yes", "no", None, False),
    ("There isn’t one.", "yes", "yes", None, False),
    ("Nothing to see", "yes", "yes", None, True),
    ("I do not know", "no", "no", None, False),
    ("No.\nThere", "no", "yes", None, False),
    ("", "yes", "yes", None, True),
    ("A dog is on the sofa.", "yes", "yes", None, True),
    ("Yes", "yes", "yes", "yes", False),
    ("Yesterday, nobody, notably", "yes", "yes", None, True),
]


@pytest.mark.parametrize(("answer", "official", "pai", "exact", "unparsed"), ANSWERS)
def test_each_parser_reads_an_answer_as_its_source_does(
    answer: str, official: str, pai: str, exact: str | None, unparsed: bool
) -> None:
    assert pope.parse_answer(answer) == official
    assert pope.parse_answer(answer, "official") == official
    assert pope.parse_answer(answer, "pai") == pai
    assert pope.parse_answer(answer, "exact") == exact
    assert pope.is_unparsed(answer) is unparsed


@pytest.mark.parametrize(
    ("answer", "of_yes", "of_no"),
    [
        ("Yes", "yes", "yes"),
        (" NO \n", "no", "no"),
        ("No, but yes there is a cat.", "yes", "no"),
        ("I do not know", "no", "no"),
        ("There is none.", "no", "no"),
        ("Perhaps", "no", "yes"),
        ("", "no", "yes"),
    ],
)
def test_vcds_parser_reads_by_the_label(answer: str, of_yes: str, of_no: str) -> None:
    assert pope.parse_answer(answer, "vcd", "yes") == of_yes
    assert pope.parse_answer(answer, "vcd", "no") == of_no
    with pytest.raises(ValueError, match="'vcd' reads an answer by its question's label"):
        pope.parse_answer(answer, "vcd")


def test_answers_that_other_parsers_read_otherwise_are_counted() -> None:
    rows = [{"label": "yes", "answer": answer} for answer in ("Yes", "no", "Yes, it is.", "Yes. It is not red.", "Hm")]
    assert pope.read_otherwise(rows, "official") == {"pai": 1, "vcd": 1, "exact": 3}
    assert pope.read_otherwise(rows, "pai") == {"official": 1, "vcd": 2, "exact": 3}
    plain = [{"label": "yes", "answer": "yes"}, {"label": "no", "answer": "No"}]
    assert pope.read_otherwise(plain, "exact") == {"official": 0, "pai": 0, "vcd": 0}


def test_figures_by_hand() -> None:
    rows = [
        *[{"label": "yes", "answer": "yes"}] * 5,
        *[{"label": "yes", "answer": "no"}] * 3,
        *[{"label": "no", "answer": "yes"}] * 2,
        *[{"label": "no", "answer": "no"}] * 7,
        {"label": "no", "answer": "maybe"},
    ]
    read = pope.figures(rows)
    assert {key: read[key] for key in ("tp", "fp", "tn", "fn", "unparsed", "n")} == {
        "tp": 5,
        "fp": 3,
        "tn": 7,
        "fn": 3,
        "unparsed": 1,
        "n": 18,
    }
    assert read["accuracy"] == pytest.approx(100 * 12 / 18)
    assert read["precision"] == pytest.approx(62.5)
    assert read["recall"] == pytest.approx(62.5)
    assert read["f1"] == pytest.approx(62.5)
    assert read["yes_ratio"] == pytest.approx(100 * 8 / 18)
    exact = pope.figures(rows, "exact")
    assert (exact["tp"], exact["fp"], exact["tn"], exact["fn"]) == (5, 2, 7, 3)
    assert exact["accuracy"] == pytest.approx(100 * 12 / 18)


@pytest.mark.parametrize("parser", sorted(pope.PARSERS))
def test_figures_agree_with_one_pass_a_figure(parser: str) -> None:
    draw = random.Random(3)
    for _ in range(100):
        rows = [
            {"label": draw.choice(["yes", "no"]), "answer": draw.choice(ANSWERS)[0]} for _ in range(draw.randint(1, 23))
        ]
        pairs = [(row["label"], pope.parse_answer(row["answer"], parser, row["label"])) for row in rows]
        said_yes = [label for label, said in pairs if said == "yes"]
        present = [said for label, said in pairs if label == "yes" and said is not None]
        read = pope.figures(rows, parser)
        precision = said_yes.count("yes") / len(said_yes) if said_yes else 0.0
        recall = present.count("yes") / len(present) if present else 0.0
        assert read["accuracy"] == pytest.approx(100 * sum(label == said for label, said in pairs) / len(rows))
        assert read["yes_ratio"] == pytest.approx(100 * len(said_yes) / len(rows))
        assert read["precision"] == pytest.approx(100 * precision)
        assert read["recall"] == pytest.approx(100 * recall)
        both = precision + recall
        assert read["f1"] == pytest.approx(200 * precision * recall / both if both else 0.0)
        if parser != "exact":
            assert read["tp"] + read["fp"] + read["tn"] + read["fn"] == read["n"] == len(rows)


def test_shares_of_nothing_are_zero() -> None:
    read = pope.figures([{"label": "no", "answer": "no"}])
    assert (read["accuracy"], read["precision"], read["recall"], read["f1"], read["yes_ratio"]) == (100, 0, 0, 0, 0)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="at least one"):
        pope.figures([])
    with pytest.raises(ValueError, match=r"row 2 .*'maybe'"):
        pope.figures([{"label": "yes", "answer": ""}, {"label": "maybe", "answer": ""}])
    with pytest.raises(ValueError, match="row 1 must be text, not NoneType"):
        pope.figures([{"label": "yes", "answer": None}])
    with pytest.raises(ValueError, match="did you mean 'official'"):
        pope.parse_answer("yes", "offical")
    with pytest.raises(ValueError, match="official, pai, vcd, exact"):
        pope.figures([{"label": "yes", "answer": "yes"}], "llm")


@pytest.mark.parametrize("name", ["single", "chat"])
def test_counts_equal_those_of_the_released_answers(name: str, reference: Path) -> None:
    rows = [json.loads(line) for line in (reference / "pope" / f"{name}.jsonl").read_text().splitlines()]
    expected = json.loads((reference / "pope" / f"{name}.expected.json").read_text())
    read = pope.figures(rows, "pai")
    for count in ("tp", "fp", "tn", "fn"):
        assert read[count] == expected[count.upper()]
    for share in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
        assert read[share] == pytest.approx(100 * expected[share])
    assert read["n"] == expected["n"]
