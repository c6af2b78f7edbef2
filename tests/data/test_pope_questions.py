"""POPE's questions: its sampling rules and its files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_fixattn.data.pope_questions import KINDS, PopeQuestion, build, choose_images, question, read
from lmms_fixattn.errors import UserError

NAMES = ["cat", "dog", "cup", "bus", "oven", "apple", "kite", "tv", "bed", "fork", "car", "bear"]


def data_sets(most: int = 6) -> st.SearchStrategy[dict[int, list[str]]]:
    shown = st.lists(st.sampled_from(NAMES), min_size=3, max_size=most, unique=True)
    # Two images that share nothing leave every image three absent objects.
    return st.lists(shown, max_size=9).map(
        lambda lists: dict(enumerate([*lists, NAMES[:6], NAMES[6:]], start=1)),
    )


def in_question(text: str) -> str:
    assert text.startswith("Is there a")
    assert text.endswith(" in the image?")
    return text.removeprefix("Is there ").removesuffix(" in the image?").split(" ", 1)[1]


def test_the_article_follows_the_first_letter() -> None:
    assert question("snowboard") == "Is there a snowboard in the image?"
    assert question("oven") == "Is there an oven in the image?"
    assert question("umbrella") == "Is there an umbrella in the image?"
    assert [question(f"{letter}x").split()[2] for letter in "aeiou"] == ["an"] * 5
    assert [question(f"{letter}x").split()[2] for letter in "bchwyz"] == ["a"] * 6


def test_the_published_questions_are_in_these_words_and_this_order(reference: Path) -> None:
    rows = [json.loads(line) for line in (reference / "pope" / "single.jsonl").read_text().splitlines()]
    assert len(rows) > 100  # the first answers of a run, cut off in the middle of an image
    assert [row["label"] for row in rows] == (["yes", "no"] * len(rows))[: len(rows)]
    names = [in_question(row["question"]) for row in rows]
    assert [question(name) for name in names] == [row["question"] for row in rows]
    assert all(len(set(names[start : start + 6])) == 6 for start in range(0, len(rows) - 5, 6))


@given(data_sets(), st.sampled_from(KINDS), st.integers(0, 3))
def test_each_image_gets_three_present_and_three_absent_objects_in_turn(
    objects: dict[int, list[str]], kind: str, seed: int
) -> None:
    questions = build(objects, kind, seed)
    assert [q.question_id for q in questions] == list(range(1, 6 * len(objects) + 1))
    for position, (image_id, shown) in enumerate(objects.items()):
        six = questions[6 * position : 6 * position + 6]
        assert {q.image_id for q in six} == {image_id}
        assert [q.label for q in six] == ["yes", "no"] * 3
        assert [in_question(q.question) for q in six[::2]] == shown[:3]
        absent = [in_question(q.question) for q in six[1::2]]
        assert len(set(absent)) == 3
        assert not set(absent) & set(shown)
        assert set(absent) <= {name for names in objects.values() for name in names}


@given(data_sets())
def test_popular_absent_objects_are_the_most_frequent_ones_not_shown(objects: dict[int, list[str]]) -> None:
    met = list(dict.fromkeys(name for names in objects.values() for name in names))
    images_with = {name: sum(name in names for names in objects.values()) for name in met}
    asked = [in_question(q.question) for q in build(objects, "popular") if q.label == "no"]
    for position, shown in enumerate(objects.values()):
        ranked = sorted((n for n in met if n not in shown), key=lambda n: (-images_with[n], met.index(n)))
        assert asked[3 * position : 3 * position + 3] == ranked[:3]


@given(data_sets())
@settings(max_examples=200)
def test_adversarial_absent_objects_are_those_that_most_often_share_an_image_with_the_one_asked_for(
    objects: dict[int, list[str]],
) -> None:
    questions = build(objects, "adversarial")
    for position, shown in enumerate(objects.values()):
        free = {name for names in objects.values() for name in names} - set(shown)
        for turn in range(3):
            present, absent = (in_question(q.question) for q in questions[6 * position + 2 * turn :][:2])
            shares = {n: sum(n in names and present in names for names in objects.values()) for n in free}
            assert shares[absent] == max(shares.values())
            free.remove(absent)


def test_random_absent_objects_are_drawn_uniformly() -> None:
    objects = {1: NAMES[:3], 2: NAMES[3:]} | dict.fromkeys(range(3, 40), NAMES[3:6])
    first = Counter(in_question(build(objects, "random", seed)[1].question) for seed in range(900))
    assert set(first) == set(NAMES[3:])  # rare ones too
    assert all(60 < count < 140 for count in first.values())  # 900 draws of 9 names: 100 +- 4 standard deviations


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_fixes_the_questions(kind: str) -> None:
    objects = {i: [NAMES[(i + k * k) % 12] for k in (0, 1, 2)] for i in range(1, 30)}
    objects = {i: list(dict.fromkeys(names)) for i, names in objects.items()}
    assert build(objects, kind, 4) == build(objects, kind, 4)
    assert (build(objects, kind, 4) != build(objects, kind, 5)) == (kind == "random")


def test_an_image_with_fewer_than_three_objects_is_refused_and_counted() -> None:
    with pytest.raises(UserError, match=r"2 of 3 images show less than the 3 kinds of objects .* the first is 5"):
        build({1: NAMES[:3], 5: NAMES[:2], 7: []}, "random")


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_leaves_nothing_to_ask_for_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="image 2: it shows 6 of 8 kinds"):
        build({1: NAMES[:4], 2: NAMES[:6], 3: NAMES[4:8]}, kind)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'rare': expected one of random, popular, adversarial"):
        build({1: NAMES[:3]}, "rare")


@given(data_sets(), st.integers(1, 12), st.integers(0, 3))
def test_images_are_chosen_by_seed_among_those_with_three_objects(
    objects: dict[int, list[str]], count: int, seed: int
) -> None:
    objects |= {100: NAMES[:2], 101: []}
    chosen = choose_images(objects, count, seed)
    assert len(set(chosen)) == len(chosen) == min(count, len(objects) - 2)
    assert list(chosen) == sorted(chosen)
    assert all(len(objects[image_id]) >= 3 for image_id in chosen)
    assert chosen == choose_images(dict(reversed(objects.items())), count, seed)


def test_choosing_among_no_image_with_three_objects_is_refused() -> None:
    with pytest.raises(UserError, match="none of 1 images shows 3 kinds"):
        choose_images({1: ["cat"]})


def published(**changes: object) -> dict[str, object]:
    return {
        "question_id": 1,
        "image": "COCO_val2014_000000310196.jpg",
        "text": "Is there a snowboard in the image?",
        "label": "yes",
    } | changes


KNOWN = {"COCO_val2014_000000310196.jpg": 310196, "mine.jpg": 8}


def test_a_published_file_is_read_as_it_is(tmp_path: Path) -> None:
    rows = [published(), published(question_id=2, image="mine.jpg", label="No", extra=1)]
    (tmp_path / "coco_pope_random.json").write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    text = "Is there a snowboard in the image?"
    assert read(tmp_path, "random", KNOWN.get) == [
        PopeQuestion(1, 310196, text, "yes"),
        PopeQuestion(2, 8, text, "no"),
    ]


def test_questions_about_images_that_are_not_there_are_counted(tmp_path: Path) -> None:
    rows = [
        published(question_id=n, image=name)
        for n, name in enumerate([published()["image"], "cam2_310196.jpg", "8.jpg"])
    ]
    (tmp_path / "coco_pope_random.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"2 of 3 questions .* not in the data set, the first is 'cam2_310196"):
        read(tmp_path, "random", KNOWN.get)


def test_two_names_of_one_image_are_refused(tmp_path: Path) -> None:
    rows = [published(question_id=n, image=f"cam{n}/mine.jpg") for n in (1, 2)]
    (tmp_path / "coco_pope_random.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"line 2: image 8 is 'cam2/mine.jpg' and, before it, 'cam1/mine.jpg'"):
        read(tmp_path, "random", lambda name: 8)


SEEM = [
    {"question_id": 1, "image": "COCO_val2014_000000461751.jpg", "text": "Is there a cat?", "label": "yes"},
    {"question_id": 2, "image": "2405722.jpg", "text": "Is there an elephant in the image?", "label": "no"},
]  # fmt: skip


@pytest.mark.parametrize("name", ["aokvqa_pope_seem_random.json", "gqa_pope_random.json", "coco_pope_random.json"])
def test_an_indented_list_is_read_under_the_names_that_released_files_have(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(SEEM, indent=4))
    images = {"COCO_val2014_000000461751.jpg": 461751, "2405722.jpg": 2405722}
    assert read(tmp_path, "random", images.get) == [
        PopeQuestion(1, 461751, "Is there a cat?", "yes"),
        PopeQuestion(2, 2405722, "Is there an elephant in the image?", "no"),
    ]


def test_of_two_data_sets_in_a_folder_none_is_taken_unless_one_is_cocos(tmp_path: Path) -> None:
    for name in ("aokvqa_pope_seem_random.json", "gqa_pope_seem_random.json"):
        (tmp_path / name).write_text(json.dumps(SEEM))
    with pytest.raises(UserError, match=r"aokvqa_pope_seem_random.json and gqa_pope_seem_random.json may each hold"):
        read(tmp_path, "random", KNOWN.get)
    (tmp_path / "coco_pope_random.json").write_text(json.dumps([published()]))
    assert [question.image_id for question in read(tmp_path, "random", KNOWN.get)] == [310196]


def test_the_old_random_split_of_2910_questions_is_read_whole(tmp_path: Path) -> None:
    """Its images have fewer than six questions each where nothing more was to be asked."""
    rows = [
        published(question_id=n, image=f"COCO_val2014_{n // 6:012d}.jpg", text=f"Is there a {n % 6}?")
        for n in range(2910)
    ]
    (tmp_path / "coco_pope_random.json").write_text("\n".join(map(json.dumps, rows[2:] + rows[:1])))
    assert len(read(tmp_path, "random", lambda name: int(name[13:25]))) == 2909


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"label": "maybe"}, '\'label\' must be "yes" or "no", not "maybe"'),
        ({"label": True}, "'label' must be text, not a boolean"),
        ({"question_id": 2, "label": None}, "no key 'label', which other questions of the file have"),
        ({"question_id": "x"}, "'question_id' must be a whole number .* not \"x\""),
        ({"question_id": 7.9}, "'question_id' must be a whole number .* not 7.9"),
        ({"question_id": None}, "no key 'question_id'"),
        ({"question_id": 2, "image": None}, "no key 'image'"),
        ({"question_id": 2, "image": ["mine.jpg"]}, "an image id must be a whole number .* not a list"),
        ({"question_id": 2, "text": 5}, "'text' must be text, not a number"),
        ({}, "the question of .*line 1 once more; keep one"),
    ],
)
def test_a_malformed_question_is_refused_with_its_line(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    (tmp_path / "coco_pope_popular.json").write_text(f"{json.dumps(published())}\n{json.dumps(published(**changes))}\n")
    with pytest.raises(UserError, match=f"coco_pope_popular.json, line 2: .*{complaint}"):
        read(tmp_path, "popular", KNOWN.get)


@pytest.mark.parametrize(
    ("line", "complaint"), [("{", "malformed JSON"), ("[1]", "not a list"), ("{}", "not the keys")]
)
def test_a_malformed_line_is_refused_with_its_number(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "coco_pope_popular.json").write_text(json.dumps(published()) + "\n" + line + "\n")
    with pytest.raises(UserError, match=rf"coco_pope_popular.json, line [23]\b.*{complaint}"):
        read(tmp_path, "popular", KNOWN.get)


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing POPE file .*coco_pope_random.json"):
        read(tmp_path, "random", {}.get)
    (tmp_path / "coco_pope_random.json").write_text("\n")
    with pytest.raises(UserError, match=r"coco_pope_random.json: no questions"):
        read(tmp_path, "random", {}.get)
