"""Which image of a data set a name means: by its path, or by COCO's number; exactly, or not at all."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from lmms_fixattn.errors import UserError

# COCO_val2014_000000310196.jpg, 000000310196.jpg, 310196.jpg, 310196
_COCO = re.compile(r"(?:COCO_(?P<split>[a-z]+\d{4})_(?P<long>\d{12})|(?P<number>\d{1,12}))(?:\.[a-z]\w*)?", re.A | re.I)


class ImageNames:
    """Look images up by names that were written elsewhere, such as those of question files.

    A name means an image whose path in the data set it is. Else it means the one whose path agrees with it in as many
    last parts as the shorter of the two has: val2014/a.jpg and a.jpg agree, cam1/a.jpg and cam2/a.jpg do not. Else it
    means the one whose id it states as COCO's names do (:func:`coco_id`), where the image's own name states it too:
    000000000139.jpg is COCO_val2014_000000000139.jpg. A number that merely ends a name says nothing.
    """

    def __init__(self, images: Iterable[tuple[int, str]]) -> None:
        """Take (image id, path in the data set) of every image; ids may come again in another split."""
        self._by_path: dict[tuple[str, ...], set[int]] = defaultdict(set)
        self._by_last: dict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
        self._paths: dict[int, list[tuple[str, ...]]] = defaultdict(list)
        for image_id, path in images:
            parts = _parts(path)
            self._by_path[parts].add(image_id)
            self._by_last[parts[-1]].append((parts, image_id))
            self._paths[image_id].append(parts)

    def find(self, name: str) -> int | None:
        """Return the id of the image that a name means, None when there is none.

        Raises:
            UserError: several images agree with the name.
        """
        parts = _parts(name)
        found = self._by_path.get(parts) or {
            image_id for path, image_id in self._by_last.get(parts[-1], ()) if _agree(path, parts)
        }
        if len(found) > 1:
            raise UserError(
                f"{name!r} may be any of {len(found)} images, such as {' and '.join(map(str, sorted(found)[:2]))}; "
                "give its path as the data set does"
            )
        if found:
            return next(iter(found))
        image_id = coco_id(parts[-1])
        stated = () if image_id is None else self._paths.get(image_id, ())
        return image_id if any(_same_number(parts, own) for own in stated) else None


def coco_id(name: str) -> int | None:
    """Return the id that an image's name states as COCO's names do: COCO_SPLIT_ and twelve digits, or digits alone."""
    match = _COCO.fullmatch(_parts(name)[-1])
    return None if match is None else int(match["long"] or match["number"])


def has_coco_name(name: str) -> bool:
    """Tell whether a name states its id in twelve digits, which no two images of COCO's splits share."""
    match = _COCO.fullmatch(_parts(name)[-1])
    return match is not None and len(match["long"] or match["number"]) == 12


def _same_number(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Tell whether two paths state one id, and neither two splits nor, with less than COCO's digits, two folders."""
    first, second = _COCO.fullmatch(one[-1]), _COCO.fullmatch(other[-1])
    return (
        first is not None
        and second is not None
        and coco_id(one[-1]) == coco_id(other[-1])
        and (not first["split"] or not second["split"] or first["split"] == second["split"])
        and ((has_coco_name(one[-1]) and has_coco_name(other[-1])) or _agree(one[:-1], other[:-1]))
    )


def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(path.strip().replace("\\", "/")).parts or ("",)


def _agree(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shorter = min(len(one), len(other))
    return shorter == 0 or one[-shorter:] == other[-shorter:]
