"""Where the tasks' documents come from: folder, hub, files, annotations; and what is said when they are not there."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from coco_folders import write_coco
from image_server import ImageServer, jpeg
from loopback import refusing_address
from PIL import Image

from lmms_fixattn.data import DataError, hub, image_lists, known_images
from lmms_fixattn.data import image_host as image_host_module
from lmms_fixattn.data.pope_questions import KINDS, build
from lmms_fixattn.harness.tasks import chair, pope, pope_documents
from lmms_fixattn.harness.tasks.visual import doc_to_visual

pytestmark = pytest.mark.system

SHOWN = {1: ["cat", "dog", "cup"], 2: ["dog", "cup", "bus"], 3: ["bus", "car", "tv"], 4: ["cat"]}


@pytest.fixture(autouse=True)
def _ask_the_hub_anew() -> Iterator[None]:
    pope_documents._hub_error.cache_clear()
    yield
    pope_documents._hub_error.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A COCO-format folder that holds none of POPE's images."""
    write_coco(tmp_path, SHOWN, {image_id: ["A person."] for image_id in SHOWN})
    monkeypatch.setenv("LMMS_FIXATTN_COCO", str(tmp_path))
    return tmp_path


@pytest.fixture
def on_hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[dict[str, Any]]], None]:
    """Put rows, whose `image` is a shade of grey, on a hub that needs no network."""
    import datasets

    contents: dict[str, list[dict[str, Any]]] = {}

    def load_dataset(path: str, name: str | None = None, split: str = "train", cache_dir: str | None = None) -> Any:
        if path not in contents:
            raise ConnectionError(f"Couldn't reach '{path}' on the Hub\nsecond line")
        rows = [row | {"image": {"bytes": png(row["image"]), "path": None}} for row in contents[path]]
        return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return contents.__setitem__


@pytest.fixture
def image_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageServer]:
    """COCO's image host on the loopback, and an empty cache."""
    with ImageServer() as server:
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(image_host_module, "_BACKOFF", 0.01)
        monkeypatch.setenv("LMMS_FIXATTN_IMAGE_HOST", server.address)
        monkeypatch.setenv("LMMS_FIXATTN_CACHE", str(tmp_path / "cache"))
        yield server


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (5, 3), shade).save(file, "png")
    return file.getvalue()


def test_truth_is_the_union_of_instances_and_reference_captions(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text("4\n1\n")
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", str(tmp_path / "list.txt"))
    docs = chair.coco_documents(None)
    assert docs["image_id"] == [1, 4]
    assert docs["truth"] == [["cat", "cup", "dog", "person"], ["cat", "person"]]


def test_an_image_without_truth_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(folder, SHOWN | {5: [], 6: []}, {1: ["A person."], 5: ["Empty."]})
    (tmp_path / "list.txt").write_text("1\n5\n6\n")
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", str(tmp_path / "list.txt"))
    with pytest.raises(DataError, match=r"1 of 3 images have neither instances nor captions .* the first is 6"):
        chair.coco_documents(None)


def test_the_default_list_is_the_papers_and_its_lacking_images_are_counted(folder: Path) -> None:
    with pytest.raises(DataError, match=r"500 of 500 image ids are not in .*val2014.zip"):
        chair.coco_documents(None)


def test_every_load_of_a_task_has_a_record_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = []
    for ids in ("1\n2\n", "3\n"):
        (folder / "list.txt").write_text(ids)
        monkeypatch.setenv("LMMS_FIXATTN_IMAGES", str(folder / "list.txt"))
        documents = chair.coco_documents
        documents(None)
        records.append(documents)
    assert [record.image_list_sha256 for record in records] == [
        image_lists.ImageList("", ids).sha256 for ids in [(1, 2), (3,)]
    ]
    assert records[0].data_sha256 != records[1].data_sha256
    assert all(value in str(records[0]) for value in (records[0].data_sha256, records[0].image_list_sha256))


def test_the_data_digest_follows_content_and_not_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.txt").write_text("1\n2\n")
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", str(tmp_path / "list.txt"))

    def digest(name: str, objects: dict[int, list[str]], **how: Any) -> str:
        monkeypatch.setenv("LMMS_FIXATTN_COCO", str(write_coco(tmp_path / name, objects, {1: ["A person."]}, **how)))
        documents = chair.coco_documents
        documents(None)
        return str(documents.data_sha256)

    first = digest("a", {1: ["cat"], 2: ["dog"]})
    assert digest("b", {1: ["cat"], 2: ["dog"]}, split="val", images=".") == first
    assert digest("c", {1: ["cat"], 2: ["cup"]}) != first
    assert digest("d", {1: ["cat"], 2: ["dog"]}, colour=1) != first


def test_the_papers_images_are_fetched_one_by_one_when_no_folder_is_set(
    image_host: ImageServer, tmp_path: Path
) -> None:
    ids = image_lists.load("paper_2501_12206").ids
    documents = chair.coco_documents
    docs = documents(None)
    assert tuple(docs["image_id"]) == ids
    assert dict(image_host.asked) == dict.fromkeys(ids, 1)
    known = known_images.of(image_lists.load("paper_2501_12206"))
    assert docs["truth"] == [list(image.objects) for image in known.values()]
    assert [] in docs["truth"]
    assert Path(docs[3]["image"]).read_bytes() == jpeg(ids[3])
    assert doc_to_visual(docs[3])[0].size == (67, 41)
    record = asdict(documents)
    assert record["image_list"] == "paper_2501_12206"
    assert record["source"] == f"image cache {tmp_path / 'cache'}"
    assert record["truth"] == f"package, nltk, sha256 {known_images.SHA256}"
    assert len(record["data_sha256"]) == 64


def test_a_second_load_is_from_the_cache_alone(image_host: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = chair.coco_documents, chair.coco_documents
    first(None)
    with refusing_address() as address:
        monkeypatch.setenv("LMMS_FIXATTN_IMAGE_HOST", address)
        second(None)
        assert second.data_sha256 == first.data_sha256
        monkeypatch.setenv("LMMS_FIXATTN_IMAGES", "opera")
        with pytest.raises(DataError, match=rf"\d+ images of COCO cannot be fetched: {address}/val2014/.* three ways"):
            chair.coco_documents(None)


def test_a_file_of_known_ids_needs_no_folder_and_one_of_others_does(
    image_host: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = (image_lists.load("adaiat").ids[7], image_lists.load("opera").ids[11])
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", str(tmp_path / "mine.txt"))
    (tmp_path / "mine.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    assert set(chair.coco_documents(None)["image_id"]) == set(ids)
    (tmp_path / "mine.txt").write_text(f"{ids[0]}\n3\n")
    with pytest.raises(DataError, match=r"1 of 2 images of list mine are in none of the package's lists.* first is 3"):
        chair.coco_documents(None)


def test_a_coco_folder_wins_over_the_package_and_the_host(
    folder: Path, image_host: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = image_lists.load("adaiat").ids
    write_coco(folder, {image_id: ["toaster"] for image_id in ids}, {})
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", "adaiat")
    documents = chair.coco_documents
    assert documents(None)["truth"] == [["toaster"]] * 500
    assert (documents.source, documents.truth) == (f"folder {folder}", "annotations, lexicon")
    assert image_host.asked == {}


def test_the_hubs_own_images_are_scored_by_the_truth_that_they_carry(
    on_hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", "hub")
    rows = [{"question_id": str(i), "gt_object": ["dog", "cat", "dog"], "image": i % 256} for i in (900, 17, 301)]
    on_hub(hub.CHAIR, rows)
    documents = chair.coco_documents
    docs = documents(None)
    assert docs["image_id"] == [17, 301, 900]
    assert docs["truth"] == [["cat", "dog"]] * 3
    assert doc_to_visual(docs[2])[0].getpixel((0, 0)) == (900 % 256,) * 3
    assert documents.source == documents.truth == f"hub {hub.CHAIR}"
    assert (documents.image_list, documents.image_list_sha256) == (
        "hub",
        image_lists.ImageList("", (17, 301, 900)).sha256,
    )
    on_hub(hub.CHAIR, [*rows, rows[0]])
    with pytest.raises(DataError, match="expected a row an image, not 4 of 3"):
        chair.coco_documents(None)
    on_hub(hub.CHAIR, [rows[0] | {"gt_object": ["puppy", "unicorn"]}])
    with pytest.raises(DataError, match="image 900: 'unicorn' names none of the 80 COCO objects"):
        chair.coco_documents(None)


def test_the_hubs_images_come_from_the_hub_though_a_folder_is_set(
    folder: Path, on_hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", "hub")
    on_hub(hub.CHAIR, [{"question_id": 1, "gt_object": ["bus"], "image": 5}])
    assert chair.coco_documents(None)["truth"] == [["bus"]]


def test_all_and_a_sample_are_of_a_folders_first_split(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_coco(folder, {9: ["cat"]}, {9: ["A cat."]}, split="train2014")
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", "all")
    documents = chair.coco_documents
    assert documents(None)["image_id"] == [1, 2, 3, 4]
    assert documents.image_list == "all of val2014"
    assert not caplog.text
    many = {image_id: ["cat"] for image_id in range(1000, 1700)} | {7: []}
    write_coco(folder, many, {1001: ["A dog."]})
    drawn = {}
    for which in ("all", "sample"):
        monkeypatch.setenv("LMMS_FIXATTN_IMAGES", which)
        documents = chair.coco_documents
        drawn[which] = documents(None)["image_id"]
    assert drawn["all"] == list(range(1000, 1700))
    assert "1 of 701 images of val2014 have neither instances nor captions: left out" in caplog.text
    assert documents.image_list == "drawn from val2014 by seed 0"
    assert drawn["sample"] == sorted(random.Random(0).sample(range(1000, 1700), 500))
    assert documents.image_list_sha256 == image_lists.ImageList("", tuple(drawn["sample"])).sha256


def test_lists_named_all_and_sample_need_a_coco_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for which in ("all", "sample"):
        monkeypatch.setenv("LMMS_FIXATTN_IMAGES", which)
        with pytest.raises(DataError, match=f"LMMS_FIXATTN_IMAGES={which} is about a COCO folder of your own: name it"):
            chair.coco_documents(None)


def test_unexpected_columns_of_the_hub_are_named(on_hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", "hub")
    on_hub(hub.CHAIR, [{"question_id": 1, "gt_object": "cat", "image": 0}])
    with pytest.raises(DataError, match=r"has question_id \(int\), gt_object \(str\), .*expected image, question_id"):
        chair.coco_documents(None)


def test_without_the_hub_one_line_says_what_else_to_do(on_hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", "hub")
    for documents, ways in (
        (chair.coco_documents, ["leave LMMS_FIXATTN_IMAGES unset"]),
        (pope_documents.coco_random, ["LMMS_FIXATTN_COCO", "val2014.zip", "annotations_trainval"]),
    ):
        with pytest.raises(DataError) as caught:
            documents(None)
        message = str(caught.value)
        assert "\n" not in message
        for part in ("Couldn't reach", "access to the hub", *ways):
            assert part in message


def test_a_setting_that_no_one_knows_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMS_FIXATTN_POPE", "hbu")
    with pytest.raises(DataError, match="LMMS_FIXATTN_POPE=hbu is neither a folder nor one of hub, build, sample"):
        pope_documents.coco_random(None)
    monkeypatch.setenv("LMMS_FIXATTN_POPE_PARSER", "oficial")
    with pytest.raises(DataError, match="did you mean 'official'"):
        pope_documents.coco_random(None)
    monkeypatch.delenv("LMMS_FIXATTN_COCO")
    monkeypatch.delenv("LMMS_FIXATTN_POPE_PARSER")
    monkeypatch.setenv("LMMS_FIXATTN_POPE", "build")
    with pytest.raises(DataError, match="LMMS_FIXATTN_POPE=build needs images: set LMMS_FIXATTN_COCO"):
        pope_documents.coco_random(None)


def hub_questions(ids: tuple[int, ...]) -> list[dict[str, Any]]:
    return [
        {
            "question_id": str(number),
            "question": f"Is there a {category} thing {number} in the image?",
            "answer": "no" if number % 2 else "yes",
            "image_source": f"COCO_val2014_{image_id:012d}",
            "image": image_id % 256,
            "category": category,
        }
        for category in ("adversarial", "popular")
        for number, image_id in enumerate(image_id for image_id in ids for _ in range(6))
    ]


def test_the_hubs_questions_come_before_building_when_they_can_be_had(folder: Path, on_hub: Any) -> None:
    ids = image_lists.load("pope_coco").ids
    write_coco(folder, {ids[0]: ["cat", "dog", "cup"]})
    on_hub(hub.POPE, hub_questions(ids[::-1]))
    documents = pope_documents.coco_popular
    docs = documents(None)
    assert len(docs) == 3000
    assert docs[6]["image_id"] == ids[-2]
    assert docs[6]["question"] == "Is there a popular thing 6 in the image?"
    assert doc_to_visual(docs[6])[0].getpixel((0, 0)) == (ids[-2] % 256,) * 3
    record = asdict(documents)
    assert record["questions"] == f"hub {hub.POPE}, category popular"
    assert record["image_list"] == "pope_coco"
    with pytest.raises(DataError, match="no question of category random, only of adversarial, popular"):
        pope_documents.coco_random(None)
    chats = pope_documents.coco_popular_chat(None)
    assert tuple(chats["image_id"]) == ids
    assert chats[0]["questions"] == [f"Is there a popular thing {number} in the image?" for number in range(2994, 3000)]
    assert doc_to_visual(chats[0])[0].getpixel((0, 0)) == (ids[0] % 256,) * 3


def test_another_data_set_gets_questions_of_its_own_whatever_the_hub_holds(folder: Path, on_hub: Any) -> None:
    on_hub(hub.POPE, hub_questions(image_lists.load("pope_coco").ids))
    for kind in KINDS:
        documents = getattr(pope_documents, f"coco_{kind}")
        docs = documents(None)
        expected = build({image_id: SHOWN[image_id] for image_id in (1, 2, 3)}, kind)
        assert docs["question"] == [question.question for question in expected]
        assert docs["label"] == [question.label for question in expected]
        assert documents.questions == "built from the annotations, seed 0"
        assert documents.image_list == "drawn by seed 0"


def test_a_folder_with_some_of_popes_images_is_not_sampled(folder: Path, on_hub: Any) -> None:
    ids = image_lists.load("pope_coco").ids
    write_coco(folder, {i: ["cat", "dog", "cup"] for i in ids[:7]} | {2: ["bus", "car", "tv"]})
    with pytest.raises(DataError, match="493 of 500 image ids are not in"):
        pope_documents.coco_random(None)


def test_popes_own_images_are_built_on_when_the_hub_is_out_of_reach_and_it_is_said(
    folder: Path, on_hub: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ids = image_lists.load("pope_coco").ids
    names = ["cat", "dog", "cup", "bus", "car", "tv"]
    shown = {i: [names[(i + k) % 6] for k in range(3)] for i in (*ids, 2)}
    write_coco(folder, shown)
    documents = pope_documents.coco_adversarial
    docs = documents(None)
    assert documents.image_list == "pope_coco"
    assert documents.image_list_sha256 == image_lists.load("pope_coco").sha256
    assert docs["question"] == [q.question for q in build({i: shown[i] for i in ids}, "adversarial")]
    assert "Couldn't reach" in caplog.text
    assert f"built from the annotations of {folder}" in caplog.text
    assert "set LMMS_FIXATTN_COCO" not in caplog.text
    monkeypatch.setenv("LMMS_FIXATTN_POPE", "sample")
    sampled = pope_documents.coco_adversarial
    sampled(None)
    assert sampled.image_list == "drawn by seed 0"


def test_a_chat_needs_six_questions_an_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMS_FIXATTN_POPE", str(folder))
    row = {"question_id": 1, "image": "COCO_val2014_000000000003.png", "text": "Is there a cat?", "label": "no"}
    (folder / "coco_pope_random.json").write_text(json.dumps(row) + "\n")
    assert len(pope_documents.coco_random(None)) == 1
    with pytest.raises(DataError, match="image 3 has 1 POPE questions of kind random, not 6"):
        pope_documents.coco_random_chat(None)


def test_questions_are_asked_about_the_pictures_that_they_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {1: "cam1/0001.png", 2: "cam2/0001.png", 7: "cam1_0007.png"}
    images = [{"id": image_id, "file_name": name} for image_id, name in names.items()]
    for name in names.values():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (7, 5)).save(folder / "images" / name)
    content = {"images": images, "annotations": [], "categories": []}
    (folder / "annotations" / "instances_val2014.json").write_text(json.dumps(content))
    monkeypatch.setenv("LMMS_FIXATTN_POPE", str(folder))

    def ask(*asked: str) -> Any:
        rows = [{"question_id": n, "image": name, "text": "A dog?", "label": "no"} for n, name in enumerate(asked)]
        (folder / "coco_pope_random.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return pope_documents.coco_random(None)

    docs = ask(*names.values())
    assert docs["image_id"] == list(names)
    assert docs["image"] == [str(folder / "images" / name) for name in names.values()]
    with pytest.raises(DataError, match=r"line 2: .*'0001.png' may be any of 2 images, such as 1 and 2"):
        ask("cam1/0001.png", "0001.png")
    with pytest.raises(DataError, match="1 of 2 questions are about images that are not in"):
        ask("cam1/0001.png", "cam2_0007.png")


def test_a_chat_answered_in_part_is_refused() -> None:
    doc = {"image_id": 3, "question_ids": [1, 2], "questions": ["A?", "B?"], "labels": ["yes", "no"], "parser": "pai"}
    with pytest.raises(DataError, match="image 3: 1 answers came for 2 questions"):
        pope.process_chat(doc, [["Yes"]])


def test_a_model_without_conversations_is_told_so() -> None:
    assert pope.chat_to_text({"questions": ["A?"]}) == "A?"
    with pytest.raises(NotImplementedError, match="run without --force_simple"):
        pope.chat_to_text({"questions": ["A?"]}, round_idx=1, previous_output=["Yes"])


@pytest.mark.parametrize("module", [chair, pope_documents])
def test_an_unknown_name_is_no_document(module: Any) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'moon_documents'"):
        _ = module.moon_documents
