from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from runs_on_disk import answer_sample, caption_sample, write_lines, write_result

from lmms_fixattn.errors import UserError
from lmms_fixattn.report.runs import AnswerEntry, CaptionEntry, read_run

CAPTIONS = [{"image_id": 7, "caption": "A dog.", "terminated": False, "tokens": 5}, {"image_id": "11", "caption": "A"}]


def test_a_caption_file_is_a_run_named_as_the_file_or_as_told(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "pai.v2.jsonl", CAPTIONS)
    packed = tmp_path / "own=name.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    entries = (CaptionEntry(7, "A dog.", terminated=False, tokens=5), CaptionEntry(11, "A"))
    for text, name in ((str(path), "pai.v2"), (f"x={path}", "x"), (str(packed), "own=name"), (f"y={packed}", "y")):
        run = read_run(text)
        assert run.name == name
        assert run.captions == {"": entries}
        assert not run.answers
        assert run.record == {}


def test_an_answer_file_is_a_run_by_split(tmp_path: Path) -> None:
    row = {"question": "Is there a dog?", "label": "yes", "answer": "Yes"}
    path = write_lines(tmp_path / "a.jsonl", [row, {**row, "image_id": "3", "split": "random"}])
    run = read_run(str(path))
    assert run.answers == {
        "": (AnswerEntry(None, "Is there a dog?", "yes", "Yes"),),
        "random": (AnswerEntry(3, "Is there a dog?", "yes", "Yes"),),
    }
    assert not run.captions


def test_the_result_of_a_folder_is_read_with_what_it_records(tmp_path: Path) -> None:
    picture = tmp_path / "1.png"
    picture.write_bytes(b"")
    samples = {
        "chair_coco": [
            caption_sample(1, "A dog.", ["dog"], tokens=4, terminated=False, input_media=[str(picture)]),
            caption_sample(2, "A cat.", [], input_media=[str(tmp_path / "gone.png")]),
        ],
        "pope_coco_chat_random": [answer_sample(1, [("Is there a dog?", "yes", "Yes"), ("A cat?", "no", "No")])],
    }
    times = {"total_gen_tokens": 40, "total_elapsed_time": 8.0, "avg_latency": 8.0 / 3}
    write_result(tmp_path / "out" / "model", samples, throughput=times, version=2.0)
    run = read_run(str(tmp_path / "out"))
    assert run.name == "out"
    assert run.captions == {
        "chair_coco": (
            CaptionEntry(1, "A dog.", terminated=False, tokens=4, truth=frozenset({"dog"}), image=picture),
            CaptionEntry(2, "A cat.", truth=frozenset()),
        )
    }
    assert run.answers == {
        "pope_coco_chat_random": (
            AnswerEntry(1, "Is there a dog?", "yes", "Yes", 11),
            AnswerEntry(1, "A cat?", "no", "No", 12),
        )
    }
    assert (run.seconds, run.generated_tokens, run.requests) == (8.0, 40, 3)
    assert list(run.record["tasks"]) == ["chair_coco", "pope_coco_chat_random"]
    stated = run.record["tasks"]["chair_coco"]
    assert (stated["version"], stated["prompt"], stated["max_new_tokens"]) == (2.0, "Describe.", 512)
    assert run.record["lmms_fixattn"]["method"] == {"name": "vanilla"}


def test_several_runs_of_one_folder_are_each_named_and_none_is_taken_in_silence(tmp_path: Path) -> None:
    for method, stamp in (("spin", "20250101_000000"), ("vanilla", "20260101_000000")):
        rows = {"chair_coco": [caption_sample(1, f"A {method}.", [])]}
        folder = write_result(tmp_path / "out" / "model", rows, stamp=stamp, method=method)
    with pytest.raises(
        UserError, match=r"2 runs in one folder, .*0_results.json \(spin on chair_coco\), .*\(vanilla on"
    ):
        read_run(str(tmp_path / "out"))
    one, other = (
        read_run(f"{name}{folder}/{stamp}_results.json")
        for name, stamp in (("", "20250101_000000"), ("x=", "20260101_000000"))
    )
    assert (one.name, one.captions["chair_coco"][0].text) == ("20250101_000000", "A spin.")
    assert (other.name, other.captions["chair_coco"][0].text) == ("x", "A vanilla.")


def test_a_run_of_predictions_alone_is_told_so(tmp_path: Path) -> None:
    folder = write_result(tmp_path, {"chair_coco": [{"doc_id": 1, "filtered_resps": ["A"], "bypass": None}]})
    path = next(folder.glob("*_results.json"))
    content = json.loads(path.read_text())
    content["configs"]["chair_coco"]["metric_list"] = [{"metric": "bypass"}]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="--predict_only left out what chair_coco scores by"):
        read_run(str(folder))


def test_times_that_leave_out_some_of_the_answers_are_not_used(tmp_path: Path) -> None:
    samples = {"chair_coco": [caption_sample(1, "A", []), caption_sample(2, "A", [])]}
    for number, throughput in enumerate(({}, {"total_elapsed_time": 1.0, "avg_latency": 1.0, "total_gen_tokens": 3})):
        run = read_run(str(write_result(tmp_path / str(number), samples, throughput=throughput)))
        assert (run.seconds, run.generated_tokens, run.requests) == (None, None, None)
    others = samples | {"mme": [{"doc_id": 0, "mme_score": 1}]}
    run = read_run(str(write_result(tmp_path / "mme", others, throughput={"total_elapsed_time": 3, "avg_latency": 1})))
    assert list(run.captions) == ["chair_coco"]
    assert run.seconds is None


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \*_results.json below it"):
        read_run(str(tmp_path))
    chair = {"chair_coco": [caption_sample(1, "A", []), caption_sample(2, "A", [])]}
    folder = write_result(tmp_path / "a", chair)
    samples = next(folder.glob("*samples*"))
    samples.write_text(samples.read_text().splitlines()[0])
    with pytest.raises(UserError, match="1 samples, but the results are over 2"):
        read_run(str(folder))
    samples.unlink()
    with pytest.raises(UserError, match=r"no samples of chair_coco .*--log_samples"):
        read_run(str(folder))
    write_result(tmp_path / "b", chair)
    with pytest.raises(UserError, match=r"several runs, in .*a, .*b; name one"):
        read_run(str(tmp_path))
    with pytest.raises(UserError, match=r"none of its tasks \(mme\)"):
        read_run(str(write_result(tmp_path / "c", {"mme": [{"doc_id": 0}]})))
    broken = caption_sample(1, "A", [])
    broken["n"]["caption"] = None
    with pytest.raises(UserError, match="line 1: 'caption' must be text, not null"):
        read_run(str(write_result(tmp_path / "d", {"chair_coco": [broken]})))
    with pytest.raises(UserError, match="line 1: 'n' holds no answers"):
        read_run(str(write_result(tmp_path / "e", {"pope_coco": [{"n": [{"question": "A?"}]}]})))
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x_results.json").write_text("{")
    with pytest.raises(UserError, match="line 1, column 2: malformed JSON"):
        read_run(str(tmp_path / "f"))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "empty; expected"),
        ([{"image": 1}], r"line 1: expected .*'image'"),
        ([{}], "not the keys of nothing"),
        ([{"image_id": 1, "caption": None}], "'caption' must be text, not null"),
        ([{"image_id": 1, "caption": "A"}] * 2, "second caption for image 1"),
        ([{"image_id": 1, "caption": "A", "tokens": "5.0"}], "'tokens' must be a whole number"),
        ([{"question": "?", "label": "yes", "answer": None}], "'answer' must be text, not null"),
        ([{"question": "?", "label": "maybe", "answer": "Yes"}], "'label' must be"),
        ([{"question": "?", "label": "yes", "answer": "Yes", "image_id": 1.5}], "image id must be a whole number"),
        ([{"question": "?", "label": "yes", "answer": "Yes", "split": 3}], "'split' must be text"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, rows: list[object], said: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(UserError, match=said):
        read_run(str(path))


@pytest.mark.parametrize("text", ["=x", "x=", "missing.jsonl", "x=missing.jsonl"])
def test_a_run_that_is_not_there_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match=r"NAME=path|no such file"):
        read_run(text)


def test_answers_of_lmms_evals_own_pope_are_read_by_category(tmp_path: Path) -> None:
    samples = {"pope": [], "pope_adv": []}
    for task, category in (("pope", "random"), ("pope", "adversarial"), ("pope_adv", "adversarial")):
        sample = answer_sample(1, [("Is there a dog?", "yes", "Yes")])
        sample["n"][0]["category"] = category
        samples[task].append(sample)
    times = {"total_gen_tokens": 40, "total_elapsed_time": 8.0, "avg_latency": 8.0 / 3}
    run = read_run(str(write_result(tmp_path, samples, throughput=times)))
    entry = AnswerEntry(1, "Is there a dog?", "yes", "Yes", 11)
    assert run.answers == {"pope_random": (entry,), "pope_adversarial": (entry,), "pope_adv": (entry,)}
    assert list(run.record["tasks"]) == ["pope_random", "pope_adversarial", "pope_adv"]
    assert run.record["tasks"]["pope_random"]["max_new_tokens"] == 512
    assert (run.seconds, run.requests) == (8.0, 3)
