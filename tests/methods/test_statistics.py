"""The statistics file: what is written is read, and what is not whole is refused."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_llava import text_model

from lmms_fixattn.methods.statistics import AttentionStatistics

TRUE = 0.01 + torch.arange(30).view(5, 6) / 100
HALLUCINATED = TRUE.flip(0)


def write(folder):
    file = folder / "deep" / "demo.safetensors"
    return file, AttentionStatistics(TRUE, HALLUCINATED, text_model(), {"images": 7}).save(file)


def test_what_is_written_is_read_with_its_digest(tmp_path):
    file, digest = write(tmp_path)
    statistics, read = AttentionStatistics.read(file)
    assert torch.equal(statistics.true, TRUE)
    assert torch.equal(statistics.hallucinated, HALLUCINATED)
    assert statistics.text_model == text_model()
    assert statistics.about == {"images": 7}
    assert read == digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_ratios_are_a_head_s_and_thresholds_a_layer_s():
    statistics = AttentionStatistics(TRUE, HALLUCINATED, text_model(), {})
    for layer in range(5):
        true, hallucinated = TRUE[layer].tolist(), HALLUCINATED[layer].tolist()
        expected = [t / h for t, h in zip(true, hallucinated, strict=True)]
        assert statistics.ratios()[layer].tolist() == pytest.approx(expected)
        between = sum(hallucinated) + 0.25 * (sum(true) - sum(hallucinated))
        assert statistics.thresholds(0.25)[layer].item() == pytest.approx(between)


def test_files_that_are_missing_changed_or_something_else_are_refused(tmp_path):
    def refused(message, path=None):
        with pytest.raises(ValueError, match=message):
            AttentionStatistics.read(path or file)

    refused(r"none.safetensors: no statistics can be read .*calibrate adaiat", tmp_path / "none.safetensors")
    file, digest = write(tmp_path)
    record = json.loads(file.with_suffix(".json").read_text())

    def record_as(**changes):
        file.with_suffix(".json").write_text(json.dumps(record | changes))

    save_file({"true": TRUE, "hallucinated": TRUE.clone()}, file)
    refused(f"its record says {digest}: not the same files")
    for tensors, message in (
        ({"true": TRUE}, "holds no statistics"),
        ({"true": TRUE, "hallucinated": TRUE[:3].clone()}, r"expected 5 x 6 weights above 0, got \[3, 6\]"),
        ({"true": TRUE, "hallucinated": TRUE - 1}, "weights above 0"),
        ({"true": TRUE / 0, "hallucinated": HALLUCINATED}, "weights above 0"),
    ):
        save_file(tensors, file)
        record_as(sha256=hashlib.sha256(file.read_bytes()).hexdigest())
        refused(message)
    file.write_bytes(b"no tensors")
    record_as(sha256=hashlib.sha256(b"no tensors").hexdigest())
    refused("holds no statistics")
    record_as(kind="something else")
    refused("is no record of statistics")
    file.with_suffix(".json").write_text("{")
    refused("is no record of statistics")
    file.with_suffix(".json").unlink()
    refused(r"demo.json: no statistics can be read")
    with pytest.raises(ValueError, match=r"kept in a \.safetensors file, not in x\.pt"):
        AttentionStatistics(TRUE, TRUE, text_model(), {}).save(tmp_path / "x.pt")
