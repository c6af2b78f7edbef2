"""Images of COCO val2014 one by one, from COCO's public image host into a cache folder.

    HOST/val2014/COCO_val2014_000000310196.jpg   ->   CACHE/val2014/COCO_val2014_000000310196.jpg

Equal paths on both sides: a copy of the cache folder serves another machine as its cache, or behind any file server as
its host. A file takes its name in one step and after it was checked, so what has the name is whole.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_fixattn.data import DataError, image_host

_SPLIT = "val2014"
_BYTES = 160_000  # an image, about: val2014 has 6.2 GB in 40,504
_AT_ONCE = 8
_ANOTHER_FOLDER = "or name another folder with LMMS_FIXATTN_CACHE"

_log = logging.getLogger(__name__)

Sizes = Mapping[int, tuple[int, int] | None]  # {image id: (width, height)} in pixels, None where it is not known


@dataclass(frozen=True)
class ImageCache:
    """Find images of COCO val2014 in a folder, and fetch those that are not there.

    Attributes:
        root: the cache folder; images are in root/val2014.
        host: the address that has them below /val2014: COCO's own, or a copy's.
        offline: whether to take only what is there.
    """

    root: Path
    host: str = image_host.HOST
    offline: bool = False

    @property
    def folder(self) -> Path:
        """Where the images are."""
        return self.root / _SPLIT

    def path(self, image_id: int) -> Path:
        """Return where an image is, or will be."""
        return self.folder / f"COCO_{_SPLIT}_{image_id:012d}.jpg"

    def url(self, image_id: int) -> str:
        """Return where an image is fetched."""
        return f"{self.host.rstrip('/')}/{_SPLIT}/{self.path(image_id).name}"

    def lacking(self, images: Sizes) -> list[int]:
        """Return which images are not there, or not whole, as in a copy that was interrupted."""
        return [image_id for image_id, size in images.items() if not self._has(image_id, size)]

    def fetch(self, images: Sizes) -> None:
        """Fetch what is lacking of these images. Of several processes one does so, and the others wait.

        An image that cannot be had does not keep the others from being fetched; what was fetched stays.

        Raises:
            DataError: no such host, no room, a folder that cannot be written, images that cannot be had.
        """
        count = len(self.lacking(images))
        if not count:
            return
        if self.offline:
            size = _megabytes(count * _BYTES)
            raise DataError(
                f"{count} of {len(images)} images of COCO, about {size}, are not in {self.folder}; "
                "none is fetched under HF_HUB_OFFLINE: run lmms-fixattn data --fetch where there is a network, and "
                f"name a copy of {self.root} with LMMS_FIXATTN_CACHE"
            )
        if not self.host.startswith(("http://", "https://")):
            raise DataError(
                f"LMMS_FIXATTN_IMAGE_HOST={self.host} does not start with http:// or https://; images that are files "
                f"already belong into {self.folder}"
            )
        with self._alone():
            lacking = {image_id: images[image_id] for image_id in self.lacking(images)}  # another process may have been
            self._check_disk_space(len(lacking))
            self._download(lacking)

    def _has(self, image_id: int, size: tuple[int, int] | None) -> bool:
        try:
            return image_host.fault(self.path(image_id).read_bytes(), size) is None
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise DataError(f"{self.path(image_id)} cannot be read ({error.strerror or error})") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                _log.warning("another process fetches images to %s: waiting for it", self.folder)
                lock.acquire()
        except (OSError, NotImplementedError) as error:
            raise DataError(
                f"images cannot be kept in {self.folder} ({error}); make it writable, {_ANOTHER_FOLDER}"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _check_disk_space(self, count: int) -> None:
        needed, free = count * _BYTES, shutil.disk_usage(self.root).free
        if needed > free:
            raise DataError(
                f"{count} images of COCO take about {_megabytes(needed)}, and {self.root} has {_megabytes(free)} left; "
                f"make room, {_ANOTHER_FOLDER}"
            )

    def _download(self, images: Sizes) -> None:
        """Fetch images by a few threads at once; what keeps one from coming may end it for all.

        Raises:
            DataError: any of them could not be had.
        """
        import requests
        from tqdm import tqdm

        failed: dict[int, str] = {}
        end: tuple[int, Exception] | None = None  # what ended it early, and at which image
        done = odd = 0  # odd: failed, and the host did not say that it lacks them
        stopped = threading.Event()
        with (
            tqdm(total=len(images), unit=" images", desc="COCO images") as bar,
            requests.Session() as session,
            ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="image-host") as pool,
        ):
            coming: dict[Future[None], int] = {}
            try:  # from the first request on, since an interruption may come while the others are put in line
                for image_id, size in images.items():
                    coming[pool.submit(self._fetch_one, session, image_id, size, stopped)] = image_id
                for image in as_completed(coming):
                    try:
                        image.result()
                        done += 1
                        bar.update()
                    except image_host.ImageError as fault:
                        failed[coming[image]] = str(fault)
                        odd += not isinstance(fault, image_host.RefusedError)
                        if odd >= _AT_ONCE and not done:
                            break  # it is not the images: a login page answers, or another server
                    except (image_host.HostError, OSError) as error:
                        end = coming[image], error
                        break
            finally:
                stopped.set()
                pool.shutdown(cancel_futures=True)
        lacking = len(self.lacking(images))
        if end is not None:
            raise DataError(self._ended(lacking, *end)) from end[1]
        if failed:
            image_id, reason = min(failed.items())
            raise DataError(
                f"{lacking} of {len(images)} images of COCO could not be fetched, such as image {image_id}: "
                f"{self.url(image_id)} {reason}; the others are in {self.folder}, and a further run asks for the "
                "lacking ones alone; a COCO folder, LMMS_FIXATTN_COCO, needs none of this"
            )

    def _fetch_one(self, session: Any, image_id: int, size: tuple[int, int] | None, stopped: threading.Event) -> None:
        data = image_host.get(session, self.url(image_id), size, stopped)
        path = self.path(image_id)
        part = path.with_suffix(".part")  # of an interrupted run, at worst: this process alone writes here
        try:
            part.write_bytes(data)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def _ended(self, lacking: int, image_id: int, error: Exception) -> str:
        if not isinstance(error, OSError):
            return (
                f"{lacking} images of COCO cannot be fetched: {self.url(image_id)} {error}; run again where there is "
                "a network, or take one of three ways: name a COCO folder with LMMS_FIXATTN_COCO; name a copy of "
                f"another machine's cache folder (here {self.root}; lmms-fixattn data --fetch fills it) with "
                "LMMS_FIXATTN_CACHE; or LMMS_FIXATTN_IMAGES=hub, for other images that the hub has"
            )
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return f"images cannot be written to {self.folder} ({error.strerror or error}); {_ANOTHER_FOLDER[3:]}"
        return (
            f"the disk of {self.folder} is full: {lacking} images, about {_megabytes(lacking * _BYTES)}, are still to "
            f"come, and what is there stays; make room, {_ANOTHER_FOLDER}"
        )


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"
