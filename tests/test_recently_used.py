"""A memory bounded in bytes: never above its bound, and what it drops was unused for longest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.lru import RecentlyUsed

USES = st.lists(st.tuples(st.integers(0, 6), st.one_of(st.none(), st.integers(0, 13))), max_size=40)


@given(USES, st.integers(0, 23))
def test_it_holds_what_a_naive_list_of_uses_says(uses: list[tuple[int, int | None]], most: int) -> None:
    memory: RecentlyUsed[str] = RecentlyUsed(most)
    held: list[tuple[int, str, int]] = []  # the longest unused one first
    for step, (key, size) in enumerate(uses):
        known = next((entry for entry in held if entry[0] == key), None)
        if size is None:
            assert memory.get(key) == (known[1] if known else None)
            if known:
                held.remove(known)
                held.append(known)
            continue
        memory.put(key, f"{key} of step {step}", size)
        held = [entry for entry in held if entry[0] != key]
        if size <= most:
            held.append((key, f"{key} of step {step}", size))
        while sum(entry[2] for entry in held) > most:
            held.pop(0)
        assert memory.held == sum(entry[2] for entry in held) <= most
        assert len(memory) == len(held)
