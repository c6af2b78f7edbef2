"""The environment variables by which a user chooses data and scoring. docs/data.md is their manual."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Hold the settings of one load of a task.

    Attributes:
        coco: LMMS_FIXATTN_COCO, a COCO folder; without it the hub is asked.
        images: LMMS_FIXATTN_IMAGES, the image list of chair_coco: a name or a file of ids.
        pope: LMMS_FIXATTN_POPE, where POPE's questions come from: a folder of the published files, "hub", "build" (from
            the annotations, on POPE's own images), "sample" (the same on images of the folder's first split, drawn by a
            seed). Without it: "sample" on a folder with none of POPE's images, else the hub, else "build".
        pope_parser: LMMS_FIXATTN_POPE_PARSER, how answers become yes or no.
        analyser: LMMS_FIXATTN_CHAIR_ANALYSER, how captions become objects.
    """

    coco: str | None
    images: str
    pope: str | None
    pope_parser: str
    analyser: str

    @classmethod
    def of_environment(cls) -> Settings:
        """Read the settings; an empty variable counts as unset."""
        return cls(
            coco=os.environ.get("LMMS_FIXATTN_COCO") or None,
            images=os.environ.get("LMMS_FIXATTN_IMAGES") or "paper_2501_12206",
            pope=os.environ.get("LMMS_FIXATTN_POPE") or None,
            pope_parser=os.environ.get("LMMS_FIXATTN_POPE_PARSER") or "official",
            analyser=os.environ.get("LMMS_FIXATTN_CHAIR_ANALYSER") or "lexicon",
        )
