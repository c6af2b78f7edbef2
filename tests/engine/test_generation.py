"""Generation settings of tasks, and answers cut out of token rows."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.engine.generation import DEFAULT_NEW_TOKENS, Answer, Settings, StopAtStrings, finish

EOS, PAD = 1, 0
ALPHABET = "##ab\nc. "  # token 0 and 1 are special and write nothing


def decode(tokens: Sequence[int]) -> str:
    return "".join(ALPHABET[token] for token in tokens if token > EOS)


@pytest.mark.parametrize(
    ("kwargs", "temperature"),
    [
        ({}, None),
        ({"temperature": 0}, None),
        ({"temperature": 0.0, "do_sample": True}, None),
        ({"temperature": 0.7}, 0.7),
        ({"temperature": "0.7"}, 0.7),
        ({"temperature": 0.7, "do_sample": False}, None),
        ({"do_sample": True}, 1.0),
        ({"temperature": None, "do_sample": None}, None),
    ],
)
def test_temperature_decides_whether_to_sample(kwargs: dict[str, Any], temperature: float | None) -> None:
    settings, ignored = Settings.of(kwargs)
    config = settings.config({"eos_token_id": EOS, "pad_token_id": PAD})
    assert settings.temperature == temperature
    assert config.do_sample is (temperature is not None)
    assert not ignored


def test_every_setting_reaches_transformers_or_is_reported() -> None:
    kwargs = {
        "max_new_tokens": 7, "until": "\n", "temperature": 0.5, "top_p": 0.9, "top_k": 3, "num_beams": 2,
        "repetition_penalty": 1.2, "length_penalty": 0.8, "no_repeat_ngram_size": 4, "image_aspect_ratio": "pad",
    }  # fmt: skip
    settings, ignored = Settings.of(kwargs)
    config = settings.config({"eos_token_id": EOS})
    for name, value in kwargs.items():
        if name not in ("until", "image_aspect_ratio"):
            assert getattr(config, name) == value
    assert settings.stops == ("\n",)
    assert ignored == ("image_aspect_ratio",)


def test_sampling_settings_do_not_disturb_greedy_search() -> None:
    greedy, _ = Settings.of({"top_p": 0.9, "top_k": 3, "min_p": 0.1})
    assert greedy == Settings.of({})[0]
    assert greedy.max_new_tokens == DEFAULT_NEW_TOKENS


def test_older_name_of_the_token_cap_counts() -> None:
    assert Settings.of({"max_gen_toks": 9})[0].max_new_tokens == 9


@pytest.mark.parametrize(
    ("kwargs", "complaint"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be a number of at least 1, got 0"),
        ({"max_new_tokens": 2.5}, "whole number of at least 1, got 2.5"),
        ({"max_new_tokens": "many"}, "got 'many'"),
        ({"temperature": -1}, "temperature must be a number of at least 0, got -1"),
        ({"temperature": "nan"}, "got 'nan'"),
        ({"until": 3}, "until must be a string or a list of strings, got 3"),
        ({"until": ["a", 3]}, "until must be"),
        ({"num_return_sequences": 2}, "num_return_sequences must be 1"),
        ({"num_beams": [3]}, "num_beams must be a number"),
    ],
)
def test_values_that_cannot_be_meant_raise(kwargs: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Settings.of(kwargs)


def naive_finish(row: Sequence[int], stops: Sequence[str]) -> tuple[str, bool, int]:
    """Read token by token, as one who waits for the end."""
    for count in range(1, len(row) + 1):
        text = decode(row[:count])
        if any(stop in text for stop in stops):
            whole = decode(row[: row.index(EOS)] if EOS in row else row)
            return whole[: min(whole.index(stop) for stop in stops if stop in whole)], True, count
        if row[count - 1] == EOS:
            return text, True, count
    return decode(row), False, len(row)


ROWS = st.lists(st.integers(EOS, len(ALPHABET) - 1), min_size=1, max_size=40)
STOPS = st.lists(st.sampled_from(["\n", "ab", "a\nb", ". ", "cc", "b", "aaaa"]), max_size=3)


@given(row=ROWS, stops=STOPS)
def test_answer_is_what_a_token_by_token_reader_gets(row: list[int], stops: list[str]) -> None:
    answer = finish(row, [EOS], stops, decode)
    assert (answer, answer.terminated, answer.tokens) == naive_finish(row, stops)


@given(row=ROWS, stops=STOPS, padding=st.integers(0, 5))
def test_padding_behind_a_finished_answer_changes_nothing(row: list[int], stops: list[str], padding: int) -> None:
    alone = finish(row, [EOS], stops, decode)
    if alone.terminated:
        padded = finish([*row[: alone.tokens], *[PAD] * padding], [EOS], stops, decode)
        assert (padded, padded.terminated, padded.tokens) == (alone, True, alone.tokens)


@given(rows=st.lists(ROWS, min_size=1, max_size=4), stops=STOPS.filter(bool), prompt=st.integers(0, 3))
def test_stopping_ends_exactly_the_rows_that_hold_a_stop_string(
    rows: list[list[int]], stops: list[str], prompt: int
) -> None:
    length = max(map(len, rows))
    # The prompt is full of stop strings, which must not count; padding writes nothing.
    ids = [[2, 3, 4, 4][:prompt] * 2 + [PAD] * (length - len(row)) + row for row in rows]
    stop = StopAtStrings(stops, len([2, 3, 4, 4][:prompt] * 2), decode)
    for end in range(1, length + 1):
        seen = torch.tensor(ids)[:, : len(ids[0]) - length + end]
        new = [row[len(ids[0]) - length :][:end] for row in ids]
        newest = [any(s in decode(row) for s in stops) and not any(s in decode(row[:-1]) for s in stops) for row in new]
        stopped = stop(seen, None).tolist()
        for was_newest, is_stopped, row in zip(newest, stopped, new, strict=True):
            assert is_stopped or not was_newest
            assert not is_stopped or any(s in decode(row) for s in stops)


def test_answer_keeps_what_it_knows_when_stripped_copied_and_sent() -> None:
    answer = Answer(" a dog.\n", terminated=False, tokens=4)
    for kept in (answer.strip(), copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert (kept.strip(), kept.terminated, kept.tokens) == ("a dog.", False, 4)
