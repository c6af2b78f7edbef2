from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.report.coloured import Segment, segments
from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES

LEXICON = chair.make_analyser()


def test_by_hand() -> None:
    assert segments("A Traffic light, cats.", {"cat"}, LEXICON) == [
        Segment("A "),
        Segment("Traffic light", "traffic light", False),
        Segment(", "),
        Segment("cats", "cat", True),
        Segment("."),
    ]
    assert segments("", {"cat"}, LEXICON) == []
    assert segments("cat", {"cat"}, LEXICON) == [Segment("cat", "cat", True)]


@given(
    st.lists(st.one_of(st.sampled_from(CATEGORIES), st.text(max_size=5))).map(" ".join),
    st.sets(st.sampled_from(CATEGORIES)),
)
def test_segments_are_the_caption_and_mark_what_chair_counts(caption: str, truth: set[str]) -> None:
    found = segments(caption, truth, LEXICON)
    assert "".join(part.text for part in found) == caption
    assert all(part.text for part in found)
    row = chair.score_caption(1, caption, truth, LEXICON)
    assert [part.object for part in found if part.object] == row["objects"]
    assert [part.object for part in found if part.supported is False] == row["hallucinated"]
    assert not [part for part in found if (part.object is None) != (part.supported is None)]
