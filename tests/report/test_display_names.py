from __future__ import annotations

from lmms_fixattn.report.columns import CAPTION_COLUMNS, POPE_FIGURES, pope_column
from lmms_fixattn.report.display_names import DISPLAY_NAMES, display


def test_every_column_has_a_name_and_less_hallucination_is_good() -> None:
    assert set(CAPTION_COLUMNS) <= set(DISPLAY_NAMES)
    assert display("chair_s").header == "CHAIR_s ↓"
    assert display("recall").header == "recall ↑"
    assert display("words").header == "words"
    for figure in (*POPE_FIGURES, "n"):
        assert display(pope_column("chat_random", figure)) == display(pope_column("", figure))
    assert display("pope_random_yes_ratio").header == "yes ratio"
