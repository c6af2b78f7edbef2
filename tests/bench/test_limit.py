"""What a decode step must read, against a count by hand."""

from __future__ import annotations

import pytest
import torch
from tiny_llava import build_llava

from lmms_fixattn.bench.limit import measure_bandwidth, step_bytes


@pytest.mark.parametrize("key_heads", [3, 6])
def test_a_step_reads_what_a_hand_counts(key_heads):
    # Of tests/tiny_llava.py: hidden 42, inner 31, 5 layers, 6 heads of 14, 97 words.
    queries_and_output, keys_and_values = 2 * 42 * 84, 2 * 42 * 14 * key_heads
    layer = queries_and_output + keys_and_values + 3 * 42 * 31 + 2 * 42
    weights = 5 * layer + 42 + 97 * 42
    cached = 5 * 2 * 14 * key_heads * 17
    model = build_llava(key_heads=key_heads)
    assert step_bytes(model, rows=3, keys=17) == 4 * (weights + 3 * (42 + cached))
    assert step_bytes(model.half(), rows=3, keys=17) == 2 * (weights + 3 * (42 + cached))


def test_the_bandwidth_is_of_the_better_of_reading_and_copying():
    found = measure_bandwidth(torch.device("cpu"), size=1 << 22)
    assert set(found) == {"copy", "read", "limit"}
    assert found["limit"] == max(found["copy"], found["read"]) > 0
