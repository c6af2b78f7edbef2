"""The lmms-eval model on the demo checkpoint: batches, order, settings, rounds, and errors that name their document."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from covering import covering, in_the_system_run
from fitted_methods import DEMO_METHODS
from loguru import logger
from memory_errors import TOO_MUCH
from PIL import Image
from shapes_task import (
    CAP,
    DOCS,
    SPLIT,
    TASK,
    Doc,
    conversation,
    make,
    naive_answer,
    next_round,
    picture,
    request,
    requests,
    to_messages,
)

from lmms_fixattn import make_method, versions
from lmms_fixattn.errors import StoppedError
from lmms_fixattn.harness import requests as lmms_requests
from lmms_fixattn.harness.journal import Journal
from lmms_fixattn.harness.model import DocumentError, FixattnModel, FixattnModelSimple
from lmms_fixattn.methods import adhh
from lmms_fixattn.methods.text_model import TextModel
from lmms_fixattn.models import encoding
from lmms_fixattn.models.checkpoint import Checkpoint
from lmms_fixattn.models.llava import Llava

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def error_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what is written of errors."""
    folder = tmp_path / "errors"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def critical(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged as critical."""
    said: list[str] = []
    monkeypatch.setattr(lmms_requests.logger, "critical", said.append)
    return said


@pytest.fixture(scope="module")
def lm() -> FixattnModel:
    return make()


def in_order() -> bool:
    """Say whether several images keep their order under beams in this version."""
    return Llava(Checkpoint.find("demo", "main").config).keeps_images_in_order_under_beams()


@pytest.mark.parametrize(
    "method",
    in_the_system_run([name for name in DEMO_METHODS if name != "nucleus"], but=["fixattn", "brief"]),  # nucleus draws
)
def test_batches_give_the_answers_of_single_documents_in_the_order_of_the_requests(method: str) -> None:
    lm = make(method=method, **DEMO_METHODS[method])
    with torch.no_grad():  # so that some answers end by themselves and some at the cap
        lm.model.lm_head.weight[lm.tokenizer.eos_token_id] *= 1.3
    order = [3, 7, 0, 10, 2, 5, 8, 1, 9, 4, 6]
    if method == "beam" and not in_order():
        order = [index for index in order if len(DOCS[index]["pictures"]) < 2]
    results = lm.generate_until(requests(order))
    for doc_id, result in zip(order, results, strict=True):
        counts = result.token_counts
        found = (result.text, result.text.terminated, counts.input_tokens, counts.output_tokens)
        assert found == naive_answer(lm, DOCS[doc_id], do_sample=False)
    assert {result.text.terminated for result in results} == {True, False}
    lm.batch_size = 1
    assert [result.text for result in lm.generate_until(requests(order))] == [result.text for result in results]


def test_the_record_holds_the_constants_that_were_looked_up(monkeypatch: pytest.MonkeyPatch, lm: FixattnModel) -> None:
    of_demo = TextModel.of(lm.config.text_config)
    monkeypatch.setitem(adhh._HEADS, of_demo, ((1, 2),))
    found = make(method="adhh")
    assert found.record()["method"] == {"name": "adhh", "heads": ((1, 2),), "threshold": 0.4}
    assert found.identity() == make(method="adhh", heads="1:2").identity()
    assert found.identity() != make(method="adhh", heads="1:3").identity()


@pytest.mark.system
@pytest.mark.parametrize("conversation", ["llava_v1", "pai"])
def test_every_prompt_form_batches(conversation: str) -> None:
    lm = make(conversation=conversation)
    together = lm.generate_until(requests())
    lm.batch_size = 1
    assert [result.text for result in together] == [result.text for result in lm.generate_until(requests())]


def test_methods_change_answers_but_not_those_about_no_picture() -> None:
    plain, amplified = make(method="vanilla"), make(method="fixattn", alpha="0.9", gamma="1")
    pairs = list(zip(plain.generate_until(requests()), amplified.generate_until(requests()), strict=True))
    without = [index for index, doc in enumerate(DOCS) if not doc["pictures"]]
    assert all(pairs[index][0].text == pairs[index][1].text for index in without)
    assert sum(one.text != other.text for one, other in pairs) >= len(DOCS) // 2


def test_the_vision_tower_runs_once_a_picture(lm: FixattnModel) -> None:
    seen: list[int] = []
    hook = lm.model.model.vision_tower.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(args[0] if args else kwargs["pixel_values"])), with_kwargs=True
    )
    lm.generate_until(requests())
    hook.remove()
    assert sum(seen) == sum(len(doc["pictures"]) for doc in DOCS)


def ask_about_two_pictures() -> list[Doc]:
    """Twelve questions in an order that mixes the pictures, each with a copy of its picture of its own."""
    words = ["Is there a dog?", "Is there a big red car in it?", "What is it?"]
    return [{"text": words[index % 3] + " no" * (index % 2), "pictures": [picture(index % 2)]} for index in range(12)]


@pytest.mark.parametrize(("rows", "method"), covering([1, 2, 6], ["vanilla", "fixattn"]))
def test_questions_about_one_picture_share_its_encoding_and_its_prefill(method: str, rows: int) -> None:
    lm = make(docs=ask_about_two_pictures(), method=method, batch_size=rows)
    results = lm.generate_until(requests(range(12)))
    assert lm.counts["images_asked"] == lm.counts["image_prompts_asked"] == 12
    assert lm.counts["images_encoded"] == 2
    assert 3 * lm.counts["image_prompts_computed"] <= 12
    for doc, result in zip(lm.task_dict[TASK][SPLIT], results, strict=True):
        assert result.text == naive_answer(lm, doc, do_sample=False)[0]


def test_pictures_by_their_files_are_neighbours_and_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for seed, path in enumerate(paths):
        picture(seed).save(path)
    docs = [{**doc, "pictures": [str(paths[index % 2])]} for index, doc in enumerate(ask_about_two_pictures())]
    opened: list[Any] = []
    read = encoding.open_picture
    monkeypatch.setattr(encoding, "open_picture", lambda source: opened.append(source) or read(source))
    lm, other = make(docs=docs, batch_size=6), make(docs=ask_about_two_pictures(), batch_size=6)
    assert lm.generate_until(requests(range(12))) == other.generate_until(requests(range(12)))
    assert opened.count(str(paths[0])) == opened.count(str(paths[1])) == 1
    assert lm.counts["image_prompts_computed"] == 2


@pytest.mark.system
@pytest.mark.parametrize(("error", "kind"), covering(TOO_MUCH, ["generate_until", "generate_until_multi_round"]))
def test_where_memory_runs_out_smaller_batches_give_the_same_answers(
    lm: FixattnModel, error: Exception, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(write=next_round) if kind.endswith("round") else requests()
    expected = getattr(lm, kind)(asked)
    monkeypatch.setattr(lm, "_generate", limited(lm, rows=2, error=error))
    monkeypatch.setattr(lm, "_largest", 0)
    assert getattr(lm, kind)(asked) == expected
    assert lm.record()["largest_batch"] == 2


def limited(lm: FixattnModel, rows: int, error: Exception, answered: list[Any] | None = None) -> Any:
    """The model's _generate on a device with room for so many rows; notes the batches that it answers."""
    generate = lm._generate

    def limited(inputs: Any, settings: Any) -> Any:
        if len(inputs["input_ids"]) > rows:
            raise error
        if answered is not None:
            answered.append(inputs["input_ids"].tolist())
        return generate(inputs, settings)

    return limited


@pytest.mark.system
def test_batches_that_memory_has_halved_stay_the_same_after_an_interruption(
    lm: FixattnModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: list[Any] = []
    monkeypatch.setattr(lm, "batch_size", 5)
    monkeypatch.setattr(lm, "_generate", limited(lm, 3, TOO_MUCH[0], answered))
    expected = lm.generate_until(requests())
    uninterrupted = list(answered)
    answered.clear()
    for _ in range(3):
        impatient = Bar(impatient=True)
        with Journal(tmp_path / "j") as journal, lm.serving(journal, impatient), pytest.raises(KeyboardInterrupt):
            lm.generate_until(requests())
    with Journal(tmp_path / "j") as journal, lm.serving(journal, Bar()):
        assert lm.generate_until(requests()) == expected
    assert answered == uninterrupted


@pytest.mark.system
def test_an_automatic_batch_size_answers_the_same_and_is_recorded(lm: FixattnModel) -> None:
    automatic = make(batch_size="auto", max_batch_size=4)
    assert automatic.generate_until(requests()) == lm.generate_until(requests())
    assert (automatic.record()["batch_size"], automatic.record()["largest_batch"]) == ("auto", 4)
    assert automatic.identity() == lm.identity()


def test_requests_of_different_settings_each_get_their_own(lm: FixattnModel) -> None:
    caps = [2, 5, 2, 9, 5, 2, 9, 9, 2, 5, 2]
    mixed = [request(index, to_messages, {"max_new_tokens": cap}) for index, cap in enumerate(caps)]
    for cap, result, whole in zip(caps, lm.generate_until(mixed), lm.generate_until(requests()), strict=True):
        assert result.token_counts.output_tokens == min(cap, whole.token_counts.output_tokens)
        assert whole.text.startswith(result.text)


def test_answers_end_before_the_first_stop_string(lm: FixattnModel) -> None:
    whole = lm.generate_until(requests())
    stop = max((result.text.split() for result in whole), key=len)[3]
    cut = lm.generate_until(requests(until=[stop, "never said"]))
    assert [result.text for result in whole] != [result.text for result in cut]
    for long, short in zip(whole, cut, strict=True):
        assert short.text == long.text.split(stop)[0]
        if stop in long.text:
            assert short.text.terminated
            assert short.token_counts.output_tokens <= long.token_counts.output_tokens


@pytest.mark.system
def test_beams_are_those_of_transformers(lm: FixattnModel) -> None:
    ids = [index for index in range(6) if len(DOCS[index]["pictures"]) < 2 or in_order()]
    for index, result in zip(ids, lm.generate_until(requests(ids, num_beams=3)), strict=True):
        assert result.text == naive_answer(lm, DOCS[index], do_sample=False, num_beams=3)[0]


def test_beams_over_several_images_are_refused_where_transformers_mixes_the_images_up(
    lm: FixattnModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Llava, "keeps_images_in_order_under_beams", lambda family: False)
    assert len(lm.generate_until(requests([0, 1], num_beams=2))) == 2
    with pytest.raises(DocumentError, match=r"stopped: this version .*mixes up the images .*; at document 2"):
        lm.generate_until(requests([0, 2], num_beams=2))


@pytest.mark.system
def test_sampling_follows_the_seed_and_zero_temperature_is_greedy(lm: FixattnModel) -> None:
    def draw(seed: int, **kwargs: Any) -> list[str]:
        torch.manual_seed(seed)
        return [result.text for result in lm.generate_until(requests(**kwargs))]

    hot = {"temperature": 2.0, "top_p": 0.95}
    assert draw(1, **hot) == draw(1, **hot) != draw(2, **hot)
    assert draw(1, temperature=0, top_p=0.95, do_sample=True) == draw(2) == draw(3, temperature=2.0, do_sample=False)


def test_samples_of_a_resumed_run_are_those_of_a_whole_one_and_repeats_differ(
    lm: FixattnModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests([0, 1, 2, 0, 1, 2, 0, 1, 2], temperature=3.0)
    monkeypatch.setattr(lm, "batch_size", 3)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    whole = [result.text for result in lm.generate_until(asked)]
    assert torch.equal(torch.get_rng_state(), state)
    assert whole[:3] != whole[3:6] != whole[6:] != whole[:3]
    impatient = Bar(impatient=True)
    with Journal(tmp_path / "j") as journal, lm.serving(journal, impatient), pytest.raises(KeyboardInterrupt):
        lm.generate_until(asked)
    torch.rand(7)
    with Journal(tmp_path / "j") as journal, lm.serving(journal, Bar()):
        assert [result.text for result in lm.generate_until(asked)] == whole


@pytest.mark.system
def test_simple_form_answers_as_the_chat_form_does(lm: FixattnModel) -> None:
    simple = make(FixattnModelSimple)
    asked = [request(index, {"max_new_tokens": CAP}, lambda doc: doc["pictures"]) for index in range(len(DOCS))]
    assert simple.is_simple
    assert not lm.is_simple
    assert simple.generate_until(asked) == lm.generate_until(requests())


@pytest.mark.system
def test_model_is_loaded_again_after_lmms_eval_has_cleaned_it_up() -> None:
    lm = make()
    before = lm.generate_until(requests())
    lm.clean()
    assert not any(isinstance(value, torch.nn.Module) for value in vars(lm).values())
    assert lm.generate_until(requests()) == before


def test_weights_are_read_at_the_first_question_and_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    load = Checkpoint.load_model
    monkeypatch.setattr(Checkpoint, "load_model", lambda *args, **kwargs: loads.append(1) or load(*args, **kwargs))
    lm = make(method="pai")
    lm.use(make_method("vcd"))
    described = lm.record()
    assert loads == []
    lm.generate_until(requests())
    assert loads == [1]
    assert described == {**lm.record(), "largest_batch": 0}


def test_what_the_record_says_of_attention_is_what_the_loaded_model_runs_with() -> None:
    for given, expected in ((None, "sdpa"), ("eager", "eager")):
        lm = make(attn_implementation=given)
        assert lm.record()["attention"] == {"text": expected, "vision": expected}
        config = lm.model.config
        assert (config.text_config._attn_implementation, config.vision_config._attn_implementation) == (expected,) * 2


def test_the_default_method_and_what_is_not_default_are_said_first_and_recorded() -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line).strip()), format="{message}")
    default, given = make(alpha=0.5), make(method="fixattn", alpha=0.5)
    composed = make(method="pai+spin", kept=0.8)
    logger.remove(sink)
    said = [line for line in lines if line.startswith("llava_fixattn: method=")]
    assert said == [
        "llava_fixattn: method=fixattn (default; the unmodified model is method=vanilla),alpha=0.5",
        "llava_fixattn: method=fixattn,alpha=0.5",
        "llava_fixattn: method=pai+spin,spin.kept=0.8",
    ]
    assert lines[0] == said[0]
    assert (default.record()["method_is_default"], given.record()["method_is_default"]) == (True, False)
    assert default.record()["changed_settings"] == {"alpha": 0.5}
    assert composed.record()["changed_settings"] == {"spin.kept": 0.8}
    assert default.identity() == given.identity()
    default.use(make_method("pai"))
    assert (default.record()["method_is_default"], default.record()["changed_settings"]) == (False, {})


# Several runs on one load


class Bar:
    """Counts what a progress bar is told; may end the process there, as an impatient user does."""

    def __init__(self, impatient: bool = False) -> None:
        self.counted: list[int] = []
        self.impatient = impatient

    def update(self, count: int) -> None:
        self.counted.append(count)
        if self.impatient:
            raise KeyboardInterrupt


@pytest.mark.system
def test_another_method_answers_and_is_recorded_as_in_a_model_of_its_own() -> None:
    changed, own = make(method="vanilla"), make(method="pai", alpha=0.9)
    before = changed.identity()
    changed.use(own.method)
    assert changed.record() == own.record()
    assert changed.identity() == own.identity() != before
    assert changed.generate_until(requests()) == own.generate_until(requests())
    changed.use(make_method("vanilla"))
    assert changed.identity() == before


def test_a_method_that_does_not_fit_leaves_the_one_before(lm: FixattnModel) -> None:
    before = lm.record()
    with pytest.raises(ValueError, match="layers 2-99 lie outside the model"):
        lm.use(make_method("pai", layers="2-99"))
    assert lm.record() == before


@pytest.mark.parametrize("kind", ["generate_until", "generate_until_multi_round"])
def test_what_a_journal_holds_is_not_generated_again_and_batches_stay_the_same(
    lm: FixattnModel, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(write=next_round) if kind.endswith("round") else requests()
    batches: list[int] = []
    generate = lm._generate

    def counted(inputs: Any, settings: Any) -> Any:
        batches.append(len(inputs["input_ids"]))
        return generate(inputs, settings)

    monkeypatch.setattr(lm, "_generate", counted)
    monkeypatch.setattr(lm, "batch_size", 3)
    expected = getattr(lm, kind)(asked)
    uninterrupted = list(batches)

    batches.clear()
    for size in (3, 3, 3, 2):
        impatient = Bar(impatient=True)
        with Journal(tmp_path / "j") as journal, lm.serving(journal, impatient), pytest.raises(KeyboardInterrupt):
            getattr(lm, kind)(asked)
        assert impatient.counted == [size]
    assert batches == uninterrupted

    bar = Bar()
    with Journal(tmp_path / "j") as journal, lm.serving(journal, bar):
        assert getattr(lm, kind)(asked) == expected
        assert len(journal) == len(asked)
        answers = [answer for result in expected for answer in (result if isinstance(result, list) else [result.text])]
        assert journal.spent(kind)[1] == sum(answer.tokens for answer in answers)
    assert bar.counted == []
    assert batches == uninterrupted


@pytest.mark.system
def test_a_model_that_serves_stays_loaded_until_it_no_longer_does(lm: FixattnModel, tmp_path: Path) -> None:
    model = lm.model
    with Journal(tmp_path / "j") as journal, lm.serving(journal, Bar()):
        lm.clean()
        assert lm.model is model
    lm.clean()
    assert lm.model is not model


# Several rounds


def test_each_round_reads_the_answers_before_it_and_batches_equal_single_conversations(lm: FixattnModel) -> None:
    results = lm.generate_until_multi_round(requests(write=next_round))
    assert {len(answers) for answers in results} == {1, 2, 3}
    for doc, answers in zip(DOCS, results, strict=True):
        assert len(answers) == len(doc["text"]) % 3 + 1
        for index, answer in enumerate(answers):
            alone = lm.generate_until(requests([0], lambda _, d=doc, said=answers[:index]: conversation(d, said)))
            assert (alone[0].text, alone[0].text.terminated) == (answer, answer.terminated)


def test_a_task_of_one_round_is_answered_once(lm: FixattnModel) -> None:
    results = lm.generate_until_multi_round(requests(write=lambda doc, **_: to_messages(doc)))
    assert results == [[result.text] for result in lm.generate_until(requests())]


@pytest.mark.system
def test_rounds_share_a_picture_and_its_prefill_and_open_a_document_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, opened = make(method="fixattn", batch_size=2), []
    document = lm._document
    monkeypatch.setattr(lm, "_document", lambda request: opened.append(request.doc_id) or document(request))
    results = lm.generate_until_multi_round(requests(write=next_round))
    asked = [doc for doc, answers in zip(DOCS, results, strict=True) for _ in answers if doc["pictures"]]
    assert lm.counts["image_prompts_asked"] == len(asked) > lm.counts["image_prompts_computed"]
    assert lm.counts["images_asked"] == sum(len(doc["pictures"]) for doc in asked) > lm.counts["images_encoded"]
    assert sorted(opened) == list(range(len(DOCS)))


def test_rounds_of_a_simple_task_come_from_its_text() -> None:
    simple = make(FixattnModelSimple)

    def to_text(doc: Doc, round_idx: int, previous_output: Any, previous_round_info: Any) -> Any:
        return doc["pictures"], f"{previous_output[-1]} And then?", round_idx == 2, previous_output, None

    kwargs = {"max_new_tokens": CAP}
    asked = [request(index, kwargs, lambda doc: doc["pictures"], to_text) for index in range(3)]
    results = simple.generate_until_multi_round(asked)
    assert [len(answers) for answers in results] == [2, 2, 2]
    assert [answers[0] for answers in results] == [result.text for result in make().generate_until(requests(range(3)))]


# Errors


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        ("missing.png", "picture .*missing.png is missing"),
        ("broken.png", r"picture .*broken.png cannot be read \(cannot identify image file"),
        ("cut.png", r"picture .*cut.png cannot be read \(.*truncated"),
        ("float.tiff", "picture .*float.tiff has floating-point values, of which none is known to be white"),
        (7, "expected a picture .*got int"),
    ],
)
def test_document_that_cannot_be_read_ends_the_run_with_its_name(tmp_path: Path, bad: Any, cause: str) -> None:
    (tmp_path / "broken.png").write_bytes(b"this is no picture")
    picture(1).save(tmp_path / "whole.png")
    Image.new("F", (5, 3), 0.5).save(tmp_path / "float.tiff")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    docs = [dict(doc) for doc in DOCS]
    docs[4]["pictures"] = [tmp_path / bad if isinstance(bad, str) else bad]
    lm = make(docs=docs)
    message = rf"^llava_fixattn stopped: {cause}.*; at document 4 of shapes \(split test\); traceback in \S+$"
    with pytest.raises(DocumentError, match=message):
        lm.generate_until(requests())
    with pytest.raises(DocumentError, match=message):
        lm.generate_until_multi_round(requests(write=next_round))


def test_prompt_longer_than_the_model_ends_the_run_with_its_name() -> None:
    docs = [*DOCS[:3], {"text": "dog " * 3000, "pictures": []}]
    with pytest.raises(DocumentError, match=r"stopped: .*tokens, but the model has 2048 positions.*; at document 3 of"):
        make(docs=docs).generate_until(requests(range(4)))


def test_a_document_that_memory_does_not_suffice_for_is_named(
    lm: FixattnModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(lm.model.lm_head, "forward", fail)
    message = (
        r"stopped: OutOfMemoryError: no room; ask for fewer .*; at document \d of shapes .split test.; traceback in"
    )
    with pytest.raises(DocumentError, match=message):
        lm.generate_until(requests([0, 1]))


def trips(*_: Any, **__: Any) -> None:
    nothing: Any = None
    nothing["key"]


TRIPPED = "TypeError: 'NoneType' object is not subscriptable"
ADVICE = re.escape(f"; with {versions.described()}: run `lmms-fixattn check`")


@pytest.mark.parametrize(("size", "others"), [(1, ""), (4, " and 3 more"), (11, " and 10 more")])
def test_an_error_in_a_batch_says_the_cause_then_one_document_then_how_many_others(
    size: int, others: str, error_files: Path, critical: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = make(method="pai", batch_size=size)
    monkeypatch.setattr(lm.model.model.language_model.layers[1], "forward", trips)
    with pytest.raises(DocumentError) as caught:
        lm.generate_until(requests())
    (path,) = error_files.iterdir()
    where = rf"; at document \d+ of shapes \(split test\){others}"
    assert re.fullmatch(rf"llava_fixattn stopped: {TRIPPED}{where}{ADVICE}; traceback in {path}", str(caught.value))
    assert critical == [str(caught.value)]
    written = path.read_text()
    assert "in trips" in written
    documents = re.search(r"^documents: (.*)$", written, re.MULTILINE)
    assert documents is not None
    named = documents[1].split(", ")
    assert len(set(named)) == size
    assert {f"document {index} of shapes (split test)" for index in range(len(DOCS))} >= set(named)
    recorded = re.search(r"^model: (.*)$", written, re.MULTILINE)
    assert recorded is not None
    assert json.loads(recorded[1])["method"] == json.loads(json.dumps({"name": "pai", **lm.method.settings()}))
    assert json.loads(recorded[1])["versions"] == versions.installed()


def test_an_error_in_a_later_round_counts_the_conversations_that_are_left(
    error_files: Path, critical: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = make(batch_size=len(DOCS))
    generate, rounds = lm._generate, []

    def trip_in_the_third_round(inputs: Any, settings: Any) -> Any:
        rounds.append(len(inputs["input_ids"]))
        return trips() if len(rounds) == 3 else generate(inputs, settings)

    monkeypatch.setattr(lm, "_generate", trip_in_the_third_round)
    left = [index for index, doc in enumerate(DOCS) if len(doc["text"]) % 3 == 2]
    with pytest.raises(DocumentError, match=rf"stopped: {TRIPPED}; at document \d+ .* and {len(left) - 1} more; with"):
        lm.generate_until_multi_round(requests(write=next_round))
    assert rounds[0] == len(DOCS) > rounds[1] > rounds[2] == len(left)
    (path,) = error_files.iterdir()
    assert all(f"document {index} of shapes" in path.read_text() for index in left)
    assert len(critical) == 1


def test_an_error_in_a_task_says_what_it_came_from(error_files: Path) -> None:
    def write(doc: Doc) -> Any:
        try:
            trips()
        except TypeError as error:
            raise RuntimeError("no prompt\nfor this") from error

    cause = rf"RuntimeError: no prompt for this \(from {TRIPPED}\)"
    with pytest.raises(DocumentError, match=rf"stopped: {cause}; at document \d+ of shapes .split test.{ADVICE};"):
        make().generate_until(requests(write=write))
    (path,) = error_files.iterdir()
    assert path.read_text().count("Traceback (most recent call last)") == 2


def test_an_error_of_an_engine_that_names_the_versions_names_them_once(
    lm: FixattnModel, error_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EngineError(RuntimeError):
        names_versions = True

    def fail(*_: Any, **__: Any) -> None:
        raise EngineError(f"layer 2 was not edited, with {versions.described()}")

    # Raised by a statement of the package, as the engine does.
    monkeypatch.setattr(fail, "__code__", fail.__code__.replace(co_filename=str(Path(versions.__file__))))
    monkeypatch.setattr(lm.model.lm_head, "forward", fail)
    message = (
        rf"stopped: layer 2 was not edited, with {re.escape(versions.described())}; at document \d+ .*more; traceback"
    )
    with pytest.raises(DocumentError, match=message):
        lm.generate_until(requests())
    assert "EngineError" in next(error_files.iterdir()).read_text()


def test_an_error_at_no_document_is_reported_as_well(
    lm: FixattnModel, error_files: Path, critical: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm.encoder, "outline", trips)
    with pytest.raises(StoppedError, match=rf"^llava_fixattn stopped: {TRIPPED}{ADVICE}; traceback in ") as caught:
        lm.generate_until(requests())
    assert critical == [str(caught.value)]
    assert not isinstance(caught.value, DocumentError)
    assert len(list(error_files.iterdir())) == 1


def test_the_traceback_is_logged_where_no_error_file_can_be_written(
    lm: FixattnModel, tmp_path: Path, critical: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    monkeypatch.setattr(lm.model.lm_head, "forward", trips)
    said: list[str] = []
    monkeypatch.setattr(lmms_requests.logger, "error", said.append)
    with pytest.raises(
        DocumentError, match=rf"stopped: {TRIPPED}; at .*; traceback above, as no file could be written"
    ):
        lm.generate_until(requests())
    assert ["in trips" in line for line in said] == [True]
    assert len(critical) == 1


def test_an_error_at_loading_says_the_versions(error_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unloaded = make()
    monkeypatch.setattr("lmms_fixattn.models.llava.LlavaForConditionalGeneration.from_pretrained", trips)
    with pytest.raises(StoppedError, match=rf"{TRIPPED}{ADVICE}; traceback in {error_files}"):
        unloaded.generate_until(requests())
    with pytest.raises(ValueError, match="unknown method 'fixatn'"):
        FixattnModel.create_from_arg_string("pretrained=demo,method=fixatn")
    assert len(list(error_files.iterdir())) == 1


def test_settings_that_cannot_be_meant_name_the_task(lm: FixattnModel) -> None:
    with pytest.raises(ValueError, match="task shapes, generation_kwargs: max_new_tokens must be"):
        lm.generate_until(requests(max_new_tokens=0))


def test_likelihoods_are_refused(lm: FixattnModel) -> None:
    with pytest.raises(NotImplementedError, match="generation tasks only"):
        lm.loglikelihood([])


# Construction


def test_arguments_of_the_command_line_make_the_model() -> None:
    text = "pretrained=demo,device=cpu,method=pai,alpha=0.4,layers=1-3,batch_size=3,conversation=pai,dtype=float32"
    lm = FixattnModel.create_from_arg_string(text, {"batch_size": 1, "device": None, "max_batch_size": None})
    record = lm.record()
    assert (lm.batch_size, lm.encoder.form) == (3, "pai")
    assert record["method"] | {"gamma": 1.1, "cutoff": 0.1} == record["method"]
    assert (record["method"]["name"], record["method"]["alpha"], record["method"]["layers"]) == ("pai", 0.4, (1, 3))


def test_record_says_what_was_run_and_json_can_hold_it(lm: FixattnModel) -> None:
    record = json.loads(json.dumps(lm.record()))
    assert record["method"]["name"] == "fixattn"
    assert (record["conversation"], record["dtype"], record["device"]) == ("default", "float32", "cpu")
    assert set(record["attention"]) == {"text", "vision"}
    assert {"lmms-fixattn", "lmms-eval", "torch", "transformers"} <= set(record["versions"])
    assert "0x" not in repr(lm)


@pytest.mark.parametrize("changed", [{"method": "pai"}, {"alpha": 0.6}, {"conversation": "pai"}, {"dtype": "float16"}])
def test_identity_tells_models_apart_whose_answers_differ(lm: FixattnModel, changed: dict[str, Any]) -> None:
    assert make(batch_size=3).identity() == lm.identity()
    assert make(**changed).identity() != lm.identity()


def test_methods_that_draw_say_so(lm: FixattnModel) -> None:
    assert make(method="nucleus").draws
    assert make(method="pai+nucleus").draws
    assert not lm.draws
    assert not make(method="beam").draws


def test_what_was_asked_of_the_compiler_is_part_of_the_identity(lm: FixattnModel) -> None:
    compiled = make(compile="true")
    before = compiled.identity()
    assert before != lm.identity()
    compiled._compiled.active = False  # it was given up while answering
    assert compiled.identity() == before


def test_a_new_package_version_is_another_identity(lm: FixattnModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmms_fixattn.harness.model.installed", lambda: {"lmms-fixattn": "99"})
    assert make().identity() != lm.identity()


def test_layers_outside_the_model_are_an_error_at_construction() -> None:
    with pytest.raises(ValueError, match="layers 2-99 lie outside the model"):
        make(layers="2-99")


def test_chat_template_flag_of_lmms_eval_is_refused(lm: FixattnModel) -> None:
    with pytest.raises(ValueError, match="leave out --apply_chat_template"):
        _ = lm.chat_template
