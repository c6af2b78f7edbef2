from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.objects.nltk_analyser import NltkAnalyser


def stub_nltk(monkeypatch: pytest.MonkeyPatch, lemmatise: Any, tag: Any) -> None:
    modules = {name: ModuleType(name) for name in ("nltk", "nltk.corpus", "nltk.stem")}
    root: Any = modules["nltk"]
    root.word_tokenize, root.pos_tag = str.split, tag
    corpus: Any = modules["nltk.corpus"]
    corpus.wordnet = SimpleNamespace(ensure_loaded=lambda: None)
    stem: Any = modules["nltk.stem"]
    stem.WordNetLemmatizer = lambda: SimpleNamespace(lemmatize=lemmatise)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def test_each_token_is_lemmatised_in_the_mood_of_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"skiing": "VBG", "hot": "JJ", "fast": "RB", "dogs": "NNS", "of": "IN"}
    asked: list[tuple[str, str]] = []

    def lemmatise(word: str, mood: str) -> str:
        asked.append((word, mood))
        return {"skiing": "ski", "dogs": "dog"}.get(word, word)

    stub_nltk(monkeypatch, lemmatise, lambda words: [(word, tags.get(word, "NN")) for word in words])
    found = NltkAnalyser().mentions("Skiing Hot dogs of fast")
    assert found == (["skis", "hot dog"], 4)
    assert asked == [("skiing", "v"), ("hot", "a"), ("dogs", "n"), ("of", "n"), ("fast", "r")]


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(ModuleNotFoundError, match="pip install nltk") as caught:
        chair.make_analyser("nltk")
    assert "\n" not in str(caught.value)


def test_without_its_data_the_error_names_it_and_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    def missing(*_: object) -> Any:
        raise LookupError("\n****\n  Resource punkt_tab not found.\n****\n")

    monkeypatch.setattr(nltk, "word_tokenize", missing)
    monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("downloaded"))
    monkeypatch.setattr("nltk.corpus.wordnet", SimpleNamespace(ensure_loaded=lambda: None))
    with pytest.raises(LookupError, match="punkt_tab, averaged_perceptron_tagger_eng and wordnet") as caught:
        chair.make_analyser("nltk")
    assert "\n" not in str(caught.value)


def test_mentions_equal_the_reference_scorers(nltk_analyser: NltkAnalyser, reference: Path) -> None:
    for path in sorted((reference / "chair").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file][::11]
        for row in rows:
            assert nltk_analyser.mentions(row["caption"]) == (row["objects"], row["words"])
