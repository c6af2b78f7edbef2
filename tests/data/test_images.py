"""Opening and digesting images."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from lmms_fixattn.data import DataError
from lmms_fixattn.data.images import digest, open_rgb


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
