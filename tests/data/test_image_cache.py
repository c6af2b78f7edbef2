"""Images fetched one by one, from a host on the loopback that does all that a host may do."""

from __future__ import annotations

import email.utils
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from image_server import Fault, ImageServer, held_until, jpeg, reset, sent, status, truncated
from loopback import hang, refusing_address
from processes import HEARS_SIGINT, LONGEST, until

from lmms_fixattn.data import DataError, image_cache, image_host
from lmms_fixattn.data.image_cache import ImageCache

pytestmark = pytest.mark.system

IDS = tuple(range(101, 131))
IMAGES = dict.fromkeys(IDS)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_host, "_BACKOFF", 0.01)
    monkeypatch.setattr(image_host, "_TIMEOUT", (LONGEST, LONGEST))


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with ImageServer() as serving:
        yield serving


@pytest.fixture
def cache(tmp_path: Path, server: ImageServer) -> ImageCache:
    return ImageCache(tmp_path / "cache", server.address)


def held(cache: ImageCache) -> dict[int, bytes]:
    """What is in the cache's folder under an image's name; anything else there is an error, but for the lock."""
    found = {path.name: path.read_bytes() for path in cache.folder.iterdir() if path.name != ".lock"}
    by_id = {image_id: found.pop(cache.path(image_id).name) for image_id in IDS if cache.path(image_id).name in found}
    assert not found
    return by_id


def whole(ids: Any = IDS) -> dict[int, bytes]:
    return {image_id: jpeg(image_id) for image_id in ids}


def test_every_image_is_fetched_once_under_its_name_on_the_host(cache: ImageCache, server: ImageServer) -> None:
    assert cache.lacking(IMAGES) == list(IDS)
    cache.fetch(IMAGES)
    assert held(cache) == whole()
    assert cache.path(101).relative_to(cache.root).as_posix() == "val2014/COCO_val2014_000000000101.jpg"
    assert cache.url(101) == f"{server.address}/val2014/COCO_val2014_000000000101.jpg"
    cache.fetch(IMAGES)
    assert server.asked == dict.fromkeys(IDS, 1)


def test_a_cache_that_has_all_needs_neither_host_nor_writing(
    cache: ImageCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.fetch(IMAGES)
    copy = ImageCache(Path(shutil.copytree(cache.root, tmp_path / "copy")), "no address at all")
    (copy.folder / ".lock").unlink()
    monkeypatch.setattr(os, "open", lambda *args, **kwargs: pytest.fail("something was written"))
    copy.fetch(IMAGES)
    assert copy.lacking(IMAGES) == []


def test_offline_nothing_is_asked_for_and_what_is_there_serves(cache: ImageCache, server: ImageServer) -> None:
    cache.fetch(dict.fromkeys(IDS[:20]))
    offline = ImageCache(cache.root, cache.host, offline=True)
    offline.fetch(dict.fromkeys(IDS[:20]))
    with pytest.raises(
        DataError, match=rf"^10 of 30 images of COCO, about 2 MB, are not in {cache.folder}; none is .*_CACHE"
    ):
        offline.fetch(IMAGES)
    assert set(server.asked) == set(IDS[:20])


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(truncated, id="half of what was promised"),
        pytest.param(reset, id="connection reset"),
        pytest.param(status(503), id="503"),
        pytest.param(status(429, {"Retry-After": "0"}), id="429"),
        pytest.param(status(500), id="500"),
        pytest.param(status(503, {"Retry-After": "soon"}), id="a Retry-After that says nothing"),
        pytest.param(sent(lambda image: image[:-1]), id="without its last byte"),
        pytest.param(sent(lambda image: image[: len(image) // 2]), id="half, as if it were all"),
        pytest.param(sent(lambda image: image[:-900] + bytes(900)), id="zeros at the end"),
        pytest.param(sent(lambda image: image[:400] + image[-400:]), id="a hole in the middle"),
        pytest.param(sent(lambda image: b""), id="nothing"),
        pytest.param(sent(lambda image: b"<!DOCTYPE html><title>Log in</title>"), id="a page"),
    ],
)
def test_an_image_that_came_broken_twice_is_fetched_at_the_third_attempt(
    cache: ImageCache, server: ImageServer, fault: Fault
) -> None:
    for image_id in (101, 117, 130):
        server.faults[image_id] = deque([fault, fault])
    cache.fetch(IMAGES)
    assert held(cache) == whole()
    assert {image_id: count for image_id, count in server.asked.items() if count > 1} == {101: 3, 117: 3, 130: 3}


def test_an_image_that_comes_too_slowly_is_tried_again(
    cache: ImageCache, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = requests.Session.get

    def impatient_where_nothing_comes(session: Any, url: str, timeout: Any) -> Any:
        hangs = url == cache.url(117) and server.faults[117]
        return get(session, url, timeout=(LONGEST, 0.05) if hangs else timeout)

    monkeypatch.setattr(requests.Session, "get", impatient_where_nothing_comes)
    server.faults[117] = deque([hang, hang])
    cache.fetch(dict.fromkeys(IDS[10:20]))
    assert held(cache) == whole(IDS[10:20])
    assert {image_id: count for image_id, count in server.asked.items() if count > 1} == {117: 3}


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_host_says_how_long_to_wait(
    cache: ImageCache, server: ImageServer, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, waited = time.time(), []
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr("tenacity.nap.sleep_using_event", lambda stopped: waited.append)
    said = "17" if form == "seconds" else email.utils.formatdate(int(now) + 17, usegmt=True)
    server.faults[104] = deque([status(503, {"Retry-After": said})])
    cache.fetch({104: None})
    assert waited == [17 if form == "seconds" else pytest.approx(int(now) + 17 - now)]
    assert server.asked[104] == 2


def test_a_retry_after_of_a_day_is_waited_for_two_minutes() -> None:
    from tenacity import Future, RetryCallState

    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.outcome = Future.construct(1, image_host.HostError("answered 429", "86400"), True)
    assert image_host._wait(state) == 120


def test_a_redirect_is_followed(cache: ImageCache, server: ImageServer) -> None:
    place = f"{server.address}/moved/val2014/{cache.path(102).name}"
    server.faults[102] = deque([status(302, {"Location": place})])
    cache.fetch(IMAGES)
    assert held(cache) == whole()


def test_an_image_that_the_host_lacks_is_named_and_the_others_are_fetched(
    cache: ImageCache, server: ImageServer
) -> None:
    server.faults[103] = deque([status(404)])
    with pytest.raises(DataError) as caught:
        cache.fetch(IMAGES)
    message = str(caught.value)
    assert "\n" not in message
    assert f"1 of 30 images of COCO could not be fetched, such as image 103: {cache.url(103)} answered 404" in message
    assert server.asked[103] == 1
    assert held(cache) == whole(set(IDS) - {103})
    cache.fetch(IMAGES)
    assert held(cache) == whole()
    assert sum(server.asked.values()) == len(IDS) + 1


def test_a_host_that_lacks_the_first_dozen_serves_the_rest(cache: ImageCache, server: ImageServer) -> None:
    for image_id in IDS[:12]:
        server.faults[image_id] = deque([status(404)])
    with pytest.raises(DataError, match=r"12 of 30 images .* such as image 101"):
        cache.fetch(IMAGES)
    assert held(cache) == whole(IDS[12:])


def test_an_image_that_never_comes_whole_is_never_taken_for_one(cache: ImageCache, server: ImageServer) -> None:
    server.faults[105] = deque([truncated] * 99)
    with pytest.raises(DataError, match=r"1 of 30 .* image 105: .*105.jpg broke off \(.*IncompleteRead"):
        cache.fetch(IMAGES)
    assert held(cache) == whole(set(IDS) - {105})
    assert server.asked[105] == 5


def test_a_login_page_in_place_of_every_image_ends_it_soon(cache: ImageCache, server: ImageServer) -> None:
    server.always = sent(lambda image: b"<!DOCTYPE html>")
    with pytest.raises(DataError, match=r"30 of 30 .*sent no whole JPEG, 15 bytes that begin with b'<!DOCTYPE"):
        cache.fetch(IMAGES)
    assert held(cache) == {}
    assert sum(server.asked.values()) <= 2 * 8 * 5


def test_pixels_other_than_cocos_are_refused(cache: ImageCache, server: ImageServer) -> None:
    server.faults[106] = deque([sent(lambda image: jpeg(106, 66, 41))])
    cache.fetch({106: (67, 41)})
    assert server.asked[106] == 2
    assert cache.lacking({106: (67, 41)}) == []
    assert cache.lacking({106: (41, 67)}) == [106]
    with pytest.raises(DataError, match="sent 67 x 41 pixels, not 41 x 67 as COCO says"):
        cache.fetch({106: (41, 67)})


def test_part_of_a_copied_image_is_fetched_anew(cache: ImageCache, server: ImageServer) -> None:
    cache.fetch(IMAGES)
    cache.path(107).write_bytes(jpeg(107)[:-500])
    cache.path(108).write_bytes(b"")
    assert cache.lacking(IMAGES) == [107, 108]
    cache.fetch(IMAGES)
    assert held(cache) == whole()
    assert {image_id: count for image_id, count in server.asked.items() if count > 1} == {107: 2, 108: 2}


def test_without_a_network_one_line_says_the_three_ways(cache: ImageCache, server: ImageServer) -> None:
    cache.fetch(dict.fromkeys(IDS[:12]))
    with refusing_address() as address, pytest.raises(DataError) as caught:
        ImageCache(cache.root, address).fetch(IMAGES)
    message = str(caught.value)
    assert "\n" not in message
    assert "0x" not in message
    for part in (
        f"18 images of COCO cannot be fetched: {address}/val2014/COCO_val2014_",
        "cannot be reached ([Errno 111] Connection refused)",
        "LMMS_FIXATTN_COCO",
        f"(here {cache.root}; lmms-fixattn data --fetch fills it) with LMMS_FIXATTN_CACHE",
        "LMMS_FIXATTN_IMAGES=hub",
    ):
        assert part in message
    assert held(cache) == whole(IDS[:12])


def test_an_overloaded_host_ends_it_and_what_came_stays(cache: ImageCache, server: ImageServer) -> None:
    for image_id in IDS[20:]:
        server.faults[image_id] = deque([status(503)] * 99)
    with pytest.raises(
        DataError, match=r"10 images of COCO cannot be fetched: .* answered 503 Service Unavailable; run"
    ):
        cache.fetch(IMAGES)
    assert held(cache) == whole(IDS[:20])


def test_a_full_disk_is_one_line_and_leaves_no_part_of_an_image(
    cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def until_full(path: Path, data: bytes) -> int:
        if len(list(cache.folder.glob("*.jpg"))) >= 9:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", until_full)
        with pytest.raises(DataError) as caught:
            cache.fetch(IMAGES)
    assert "\n" not in str(caught.value)
    kept = held(cache)
    assert kept == whole(kept)
    lacking = len(IDS) - len(kept)
    assert 0 < lacking < len(IDS)
    assert f"the disk of {cache.folder} is full: {lacking} images, about" in str(caught.value)
    cache.fetch(IMAGES)
    assert held(cache) == whole()


def test_too_little_room_is_said_before_anything_is_asked_for(
    cache: ImageCache, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=3_000_000)
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"30 images of COCO take about 5 MB, and .*cache has 3 MB left; .*_CACHE"):
        cache.fetch(IMAGES)
    assert server.asked == {}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, server: ImageServer) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"images cannot be kept in .*file/val2014 \(.*LMMS_FIXATTN_CACHE"):
        ImageCache(tmp_path / "file", server.address).fetch(IMAGES)


def test_a_host_that_is_no_web_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"LMMS_FIXATTN_IMAGE_HOST=/data/coco does not .* into {tmp_path}/val2014"):
        ImageCache(tmp_path, "/data/coco").fetch(IMAGES)


FETCH = """
import logging, sys, threading, types
from pathlib import Path
from lmms_fixattn.data import image_cache, image_host

class Told(threading.Event):
    def set(self):
        super().set()
        print("stopped", flush=True)

logging.basicConfig(format="%(message)s", stream=sys.stdout)  # of which each line is flushed
image_host._TIMEOUT = ({patience}, {patience})
image_cache.threading = types.SimpleNamespace(**dict(vars(threading), Event=Told))
image_cache.ImageCache(Path({root!r}), {host!r}).fetch(dict.fromkeys({ids}))
"""


@contextmanager
def fetching(cache: ImageCache) -> Iterator[subprocess.Popen[str]]:
    """Fetch the images in another process, which prints the remarks it logs, and "stopped" where it stops asking."""
    code = HEARS_SIGINT + FETCH.format(patience=LONGEST, root=str(cache.root), host=cache.host, ids=list(IDS))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.system
def test_two_processes_fetch_each_image_once(cache: ImageCache, server: ImageServer) -> None:
    both_are_there = threading.Event()
    server.always = held_until(both_are_there)
    with fetching(cache) as first:
        until(lambda: server.asked, first)
        with fetching(cache) as second:
            assert second.stdout.readline() == f"another process fetches images to {cache.folder}: waiting for it\n"  # type: ignore[union-attr]
            both_are_there.set()
            assert [first.wait(LONGEST), second.wait(LONGEST)] == [0, 0]
    assert server.asked == dict.fromkeys(IDS, 1)
    assert held(cache) == whole()


@pytest.mark.system
def test_a_killed_process_leaves_whole_images_and_no_lock(cache: ImageCache, server: ImageServer) -> None:
    for image_id in IDS[12:]:
        server.faults[image_id] = deque([hang])
    with fetching(cache) as process:
        until(lambda: cache.folder.is_dir() and len(list(cache.folder.glob("*.jpg"))) >= 9, process)
        process.kill()
    (cache.folder / "COCO_val2014_000000000130.part").write_bytes(jpeg(130)[:200])  # as if killed while it wrote
    before = {path.name: path.read_bytes() for path in cache.folder.glob("*.jpg")}
    assert before == {cache.path(i).name: jpeg(i) for i in IDS if cache.path(i).name in before}
    assert 9 <= len(before) <= 12
    with ImageServer() as another:  # which counts no request of the killed process
        ImageCache(cache.root, another.address).fetch(IMAGES)
    assert held(cache) == whole()
    assert sum(another.asked.values()) == len(IDS) - len(before)


@pytest.mark.system
def test_an_interruption_ends_the_threads(cache: ImageCache, server: ImageServer) -> None:
    it_has_stopped = threading.Event()
    server.always = held_until(it_has_stopped)
    with fetching(cache) as process:
        until(lambda: server.asked, process)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopped\n"  # type: ignore[union-attr]
        it_has_stopped.set()
        assert process.wait(LONGEST) != 0
    assert sum(server.asked.values()) <= 8  # one image a thread
    assert held(cache) == whole(held(cache))
