"""The truth of the known lists that ships in the package."""

from __future__ import annotations

import gzip
import hashlib
import json
import runpy
import sys
from pathlib import Path

import pytest
from coco_folders import write_coco

from lmms_fixattn.data import DataError, image_lists, known_images
from lmms_fixattn.data.image_lists import ImageList
from lmms_fixattn.data.known_images import Known
from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES

MAKER = Path(__file__).parents[2] / "benchmarks" / "make_known_images.py"


@pytest.mark.parametrize("name", image_lists.names())
def test_every_shipped_list_is_known(name: str) -> None:
    images = image_lists.load(name)
    known = known_images.of(images)
    assert tuple(known) == images.ids
    for image in known.values():
        assert list(image.objects) == sorted(set(image.objects))
        assert set(image.objects) <= set(CATEGORIES)


def test_the_truth_equals_the_reference_scorers(reference: Path) -> None:
    truth = json.loads(gzip.decompress((reference / "chair" / "ground_truth_all.json.gz").read_bytes()))
    images = known_images.loads(known_images.PATH.read_bytes())
    assert len(images) == 2914
    assert {str(image_id): sorted(image.objects) for image_id, image in images.items()} == {
        image_id: sorted(words) for image_id, words in truth.items() if int(image_id) in images
    }


def test_released_captions_score_as_published_on_it(reference: Path) -> None:
    """The paper's own captions on the paper's own list, with nothing but what is in the package."""
    name = "r0.25_a0.7_b0.1_g1.1"
    lines = gzip.decompress((reference / "chair" / f"{name}.jsonl.gz").read_bytes()).decode().splitlines()
    captions = {row["image_id"]: row["caption"] for row in map(json.loads, lines)}
    known = known_images.of(image_lists.load("paper_2501_12206"))
    assert set(captions) == set(known)
    analyser = chair.make_analyser("lexicon")
    rows = [chair.score_caption(i, text, set(known[i].objects), analyser) for i, text in captions.items()]
    expected = json.loads((reference / "chair" / f"{name}.expected.json").read_text())
    figures = chair.corpus_figures(rows)
    assert figures["chair_s"] == pytest.approx(expected["CHAIRs"], abs=0.05)
    assert figures["chair_i"] == pytest.approx(expected["CHAIRi"], abs=0.05)
    assert figures["recall"] == pytest.approx(expected["Recall"], abs=0.05)


def test_the_file_is_the_one_that_the_code_names() -> None:
    assert hashlib.sha256(known_images.PATH.read_bytes()).hexdigest() == known_images.SHA256


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "known_images.tsv"
    path.write_bytes(known_images.PATH.read_bytes().replace(b"dog", b"cat", 1))
    monkeypatch.setattr(known_images, "PATH", path)
    with pytest.raises(DataError, match=r"known_images.tsv was changed: its sha256 is .*install lmms-fixattn again"):
        known_images.of(image_lists.load("opera"))


def test_an_image_of_no_known_list_is_counted() -> None:
    ids = (1, 2, *image_lists.load("opera").ids[:3])
    with pytest.raises(DataError, match=r"2 of 5 images of list mine are in none .* first is 1: .*LMMS_FIXATTN_COCO"):
        known_images.of(ImageList("mine", ids))


def test_what_is_written_is_read_again_with_and_without_sizes() -> None:
    images = {
        9: Known(("cat", "dining table"), (640, 479)),
        2: Known((), (7, 5)),
        5: Known(("dog",), None),
        3: Known((), None),
    }
    dumps = runpy.run_path(str(MAKER))["dumps"]
    content = dumps(images)
    assert known_images.loads(content) == images
    assert content.decode().splitlines()[0] == "2\t7x5\t"
    assert dumps(dict(reversed(images.items()))) == content


def test_the_maker_reads_a_coco_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Objects of instances and of captions, and sizes, of all lists' images, by this package's own code."""
    known = known_images.loads(known_images.PATH.read_bytes())
    ids = sorted(known)
    one_said, one_less = ids[5], ids[7]
    objects = {image_id: list(known[image_id].objects) for image_id in ids}
    objects[one_said] = []
    captions = {image_id: ["Nothing to see."] for image_id in ids}
    captions[one_said] = [f"There is a {word}." for word in known[one_said].objects]
    objects[one_less] = [*known[one_less].objects[1:], "toaster"]
    write_coco(tmp_path, objects, captions, pictures=False)
    made = tmp_path / "made.tsv"
    monkeypatch.setattr(known_images, "ANALYSER", "lexicon")  # which needs no data; the words of it are plain
    monkeypatch.setattr(sys, "argv", [str(MAKER), "--coco", str(tmp_path), "--output", str(made)])
    runpy.run_path(str(MAKER), run_name="__main__")
    said = capsys.readouterr().out
    assert "2914 images, 2914 with their size" in said
    assert f"other objects in 1 of them [{one_less}]" in said
    assert hashlib.sha256(made.read_bytes()).hexdigest() in said
    images = known_images.loads(made.read_bytes())
    assert {image.size for image in images.values()} == {(7, 5)}
    assert [i for i in ids if images[i].objects != known[i].objects] == [one_less]
