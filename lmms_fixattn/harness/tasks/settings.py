"""The environment variables by which a user chooses data and scoring. docs/data.md is their manual."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from lmms_fixattn.data import image_host


@dataclass(frozen=True)
class TaskSettings:
    """Hold the settings of one load of a task.

    Attributes:
        coco: LMMS_FIXATTN_COCO, a COCO folder; without it chair_coco has its images one by one, pope_coco the hub's.
        images: LMMS_FIXATTN_IMAGES, the images of chair_coco: the name of a list or a file of ids; "all" or "sample" of
            a COCO folder; "hub" for the hub's own.
        cache: LMMS_FIXATTN_CACHE, the folder of images that were fetched one by one.
        image_host: LMMS_FIXATTN_IMAGE_HOST, the address that has them.
        offline: HF_HUB_OFFLINE, by which the hub's libraries ask no network, and so neither does this one.
        pope: LMMS_FIXATTN_POPE, where POPE's questions come from: a folder of the published files, "hub", "build" (from
            the annotations, on POPE's own images), "sample" (the same on images of the folder's first split, drawn by a
            seed). Without it: "sample" on a folder with none of POPE's images, else the hub, else "build".
        pope_parser: LMMS_FIXATTN_POPE_PARSER, how answers become yes or no.
        analyser: LMMS_FIXATTN_CHAIR_ANALYSER, how captions become objects.
    """

    coco: str | None
    images: str
    cache: Path
    image_host: str
    offline: bool
    pope: str | None
    pope_parser: str
    analyser: str

    @classmethod
    def of_environment(cls) -> TaskSettings:
        """Read the settings; an empty variable counts as unset."""
        return cls(
            coco=os.environ.get("LMMS_FIXATTN_COCO") or None,
            images=os.environ.get("LMMS_FIXATTN_IMAGES") or "paper_2501_12206",
            cache=Path(os.environ.get("LMMS_FIXATTN_CACHE") or user_cache_path("lmms-fixattn", False)).expanduser(),
            image_host=os.environ.get("LMMS_FIXATTN_IMAGE_HOST") or image_host.HOST,
            offline=os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"),
            pope=os.environ.get("LMMS_FIXATTN_POPE") or None,
            pope_parser=os.environ.get("LMMS_FIXATTN_POPE_PARSER") or "official",
            analyser=os.environ.get("LMMS_FIXATTN_CHAIR_ANALYSER") or "lexicon",
        )
