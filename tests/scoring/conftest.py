"""NLTK's data, from wherever this machine has it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmms_fixattn.scoring.objects.nltk_analyser import NltkAnalyser

_WORDNET = Path("/usr/share/wordnet")


@pytest.fixture(scope="session")
def nltk_analyser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NltkAnalyser]:
    """The reference analyser, on NLTK's own data path or on a folder put together from the reference data."""
    import nltk

    before = list(nltk.data.path)
    try:
        yield NltkAnalyser()
        return
    except LookupError:
        pass
    models = Path(__file__).resolve().parents[3] / "shared" / "reference" / "nltk_data"
    if not models.is_dir() or not (_WORDNET / "index.sense").is_file():
        pytest.skip("no NLTK data on this machine")
    folder = tmp_path_factory.mktemp("nltk_data")
    shutil.copytree(models, folder, dirs_exist_ok=True)
    corpus = folder / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    for file in (*_WORDNET.iterdir(), models / "lexnames"):
        if file.is_file():
            shutil.copyfile(file, corpus / file.name)
    nltk.data.path.insert(0, str(folder))
    yield NltkAnalyser()
    nltk.data.path[:] = before
