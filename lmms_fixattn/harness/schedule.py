"""Which requests are answered together, in which order, and how they are read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

import datasets
from PIL import Image

from lmms_fixattn.engine.memory import MemoryBudget

Item = TypeVar("Item")
Read = TypeVar("Read")

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class RequestShape:
    """What is known of a request before its document is opened.

    Attributes:
        settings: requests of different settings are never in one batch.
        positions: its tokens, images included, and those of the longest answer; without the words of every prompt.
        pictures: what tells each of its pictures from others; None where nothing does.
    """

    settings: Hashable
    positions: int
    pictures: tuple[str | None, ...]


def plan(shapes: Sequence[RequestShape], budget: MemoryBudget) -> list[list[int]]:
    """Return the batches, as indices: longest first, but requests about the same pictures next to each other.

    It depends on its arguments alone, so that an interrupted run forms the same batches. Longest first, of all settings
    and of those in a batch together, lets memory run out early, and the longest cache come first; requests about the
    same pictures have the place of the longest of them.
    """
    clusters: dict[Hashable, list[int]] = {}
    for index in sorted(range(len(shapes)), key=lambda index: (-shapes[index].positions, index)):
        shape = shapes[index]
        known = shape.pictures and None not in shape.pictures
        clusters.setdefault((shape.settings, shape.pictures if known else index), []).append(index)
    ordered: dict[Hashable, list[int]] = {}
    for cluster in clusters.values():
        ordered.setdefault(shapes[cluster[0]].settings, []).extend(cluster)
    batches = []
    for indices in ordered.values():
        batch: list[int] = []
        longest = 0
        for index in indices:
            longest = max(longest, shapes[index].positions)
            if batch and not budget.fits(len(batch) + 1, longest):
                batches.append(batch)
                batch, longest = [], shapes[index].positions
            batch.append(index)
        batches.append(batch)
    return batches


def prefetch(read: Callable[[Item], Read], items: Iterable[Item], most: int = 2) -> Iterator[Read]:
    """Yield ``read(item)`` of each item in order, read in another thread while the caller is at work.

    An error is raised where its item's turn is, after all that came before it.

    Args:
        most: items read ahead at most, which bounds the memory that they take.
    """
    waiting: deque[Future[Read]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="reading ahead")
    try:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def with_encoded_images(documents: Any) -> Any:
    """Return documents that hand over their pictures as files, without decoding them, where they are a Dataset."""
    for name, feature in (documents.features if isinstance(documents, datasets.Dataset) else {}).items():
        if isinstance(feature, datasets.Image) and feature.decode:
            documents = documents.cast_column(name, datasets.Image(decode=False))
    return documents


def pictures_of(document: Any) -> tuple[str | None, ...]:
    """Tell a document's pictures from others without opening any: by their files' names, or a digest of their bytes.

    A guess that only orders requests: whatever looks like a picture counts, decoded ones as known by nothing.
    """
    if isinstance(document, str):
        return (document,) if document.lower().endswith(_SUFFIXES) else ()
    if isinstance(document, bytes):
        return (sha256(document).hexdigest(),)
    if isinstance(document, Image.Image):
        return (None,)
    if isinstance(document, Mapping):
        if set(document) == {"bytes", "path"}:
            return pictures_of(document["bytes"] or document["path"])
        document = document.values()
    elif not isinstance(document, list | tuple):
        return ()
    return tuple(picture for value in document for picture in pictures_of(value))
