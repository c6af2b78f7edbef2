"""Opening and digesting images."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from lmms_fixattn.data import DataError
from lmms_fixattn.data.images import PictureError, digest, open_rgb, read_rgb


def _noise(path: Path) -> bytes:
    picture = Image.effect_noise((67, 41), 90)
    picture.save(path)
    return path.read_bytes()


def test_a_path_and_its_bytes_are_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    data = _noise(path)
    from_path, from_bytes = open_rgb(1, str(path)), open_rgb(1, {"bytes": data, "path": None})
    assert from_path.mode == from_bytes.mode == "RGB"
    assert from_path.tobytes() == from_bytes.tobytes()
    assert digest(str(path)) == digest({"bytes": data, "path": "x"}) == hashlib.sha256(data).hexdigest()
    on_disk = {"bytes": None, "path": str(path)}
    assert open_rgb(1, on_disk).tobytes() == from_path.tobytes()
    assert digest(on_disk) == digest(str(path))


def test_a_replaced_file_has_another_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    _noise(path)
    first = digest(str(path))
    Image.new("RGB", (3, 2)).save(path)
    assert digest(str(path)) != first


@pytest.mark.parametrize("lenient", [True, False])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_refused_though_pil_was_told_to_pad(
    tmp_path: Path, suffix: str, lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    path = tmp_path / f"cut.{suffix}"
    data = _noise(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=rf"image 42 cannot be read .*cut.{suffix}"):
        open_rgb(42, str(path))
    with pytest.raises(DataError, match=r"image 42 cannot be read .*: \d+ bytes of the hub"):
        open_rgb(42, {"bytes": path.read_bytes(), "path": "cut"})
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_a_missing_file_and_a_text_are_refused_by_id_and_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image 7 is missing: .*gone.jpg"):
        open_rgb(7, str(tmp_path / "gone.jpg"))
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"image 7 cannot be read .*text.jpg"):
        open_rgb(7, str(tmp_path / "text.jpg"))
    with pytest.raises(DataError, match="image 7 cannot be read"):
        open_rgb(7, {"bytes": io.BytesIO().getvalue(), "path": None})


def _open(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Image.Image:
    image.save(tmp_path / name, **options)
    return open_rgb(1, str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_16_bits_of_grey_are_the_8_bits_that_they_hold(tmp_path: Path, name: str) -> None:
    shades = np.arange(256, dtype=np.uint16).reshape(4, 64)
    shown = _open(tmp_path, Image.fromarray(shades * 257), name)
    assert shown.mode == "RGB"
    assert np.array_equal(np.asarray(shown), np.stack([shades.astype(np.uint8)] * 3, axis=-1))


def test_16_bits_of_grey_are_rounded_and_not_clipped(tmp_path: Path) -> None:
    shown = _open(tmp_path, Image.fromarray(np.array([[0, 128, 129, 32768, 65535]], np.uint16)), "a.png")
    assert np.asarray(shown)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        (Image.new("F", (5, 3), 0.5), {}, "has floating-point values"),
        (Image.new("I", (5, 3), 70000), {}, "has 32-bit values"),
        (Image.new("I;16", (5, 3), 9), {"tiffinfo": {262: 0}}, "is grey of more than 8 bits in an unusual form"),
    ],
)
def test_what_rgb_cannot_show_is_refused_by_id_and_path(
    tmp_path: Path, image: Image.Image, options: dict[str, object], said: str
) -> None:
    with pytest.raises(DataError, match=rf"image 1 {said}.*: .*a.tiff"):
        _open(tmp_path, image, "a.tiff", **options)


def test_every_mode_of_8_bits_is_shown(tmp_path: Path) -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        assert _open(tmp_path, Image.new(mode, (5, 3)), f"{mode}.png").getextrema() == ((0, 0),) * 3


def test_an_orientation_in_exif_is_left_alone_as_llavas_processor_does(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    assert _open(tmp_path, Image.new("RGB", (7, 5)), "a.jpg", exif=exif).size == (7, 5)


def test_a_picture_of_more_pixels_than_pil_opens_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    with pytest.raises(DataError, match=r"image 1 is too large \(.*15 pixels.*\); make it smaller: .*a.png"):
        _open(tmp_path, Image.new("RGB", (5, 3)), "a.png")


def test_a_small_file_that_claims_too_many_pixels_is_refused_before_they_are_decoded(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("L", (3, 2)).save(out, "GIF")
    content = bytearray(out.getvalue())
    content[6:10] = (8001).to_bytes(2, "little") + (8000).to_bytes(2, "little")
    (tmp_path / "x.gif").write_bytes(content)
    with pytest.raises(PictureError, match=r"is too large \(8001 x 8000 pixels, more than 64 million\)"):
        read_rgb(str(tmp_path / "x.gif"))
