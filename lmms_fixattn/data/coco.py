"""COCO-format folders: images, categories and reference captions."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from lmms_fixattn.data import DataError
from lmms_fixattn.scoring.chair import Analyser, ground_truth
from lmms_fixattn.scoring.files.entries import kind, read_object, text_of, whole_number
from lmms_fixattn.scoring.files.image_names import ImageNames, has_coco_name

DEMO_SCENES = Path(__file__).parent.parent / "demo" / "scenes"
DEMO_CROWDED = DEMO_SCENES.with_name("crowded")

_FORM = 'of a COCO annotation file, {"images": [...], "annotations": [...]}'
HOW_TO_GET_COCO = (
    "COCO 2014 is at http://images.cocodataset.org/zips/val2014.zip and "
    "http://images.cocodataset.org/annotations/annotations_trainval2014.zip: unpack both into one folder"
)


@dataclass(frozen=True)
class CocoImage:
    """Hold an image's id, its file, and its category names: each once, in the order of their first annotation."""

    image_id: int
    path: Path
    objects: tuple[str, ...]


class CocoFolder:
    """Read a folder of COCO layout.

        ROOT/annotations/instances_SPLIT.json     e.g. instances_val2014.json, instances_train2014.json
        ROOT/annotations/captions_SPLIT.json
        ROOT/SPLIT/FILE_NAME                      or ROOT/images/SPLIT/, ROOT/images/, ROOT/

    File names are those of the annotation file, so any data set of this format will do. Splits are looked through in
    order (val before train), and one is read only when the ones before it lack an id: no COCO image is in two splits,
    and the training annotations take a minute and gigabytes that the usual lists do not need. Images are never opened.

    Raises:
        DataError: no such folder, or no instances file in it.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise DataError(f"COCO folder {self.root} does not exist; {HOW_TO_GET_COCO}")
        # What has captions or is a folder of COCO's names is a split too: its missing instances file can then be named.
        annotated = {
            path.stem.removeprefix(kind)
            for kind in ("instances_", "captions_")
            for path in self._annotations.glob(f"{kind}*.json")
        }
        pictured = {split for split in ("val2014", "train2014") if (self.root / split).is_dir()}
        found = annotated | pictured or {"val2014"}
        self.splits = tuple(sorted(found, key=lambda split: (not split.startswith("val"), split)))
        self._file("instances", self.splits[0])

    @property
    def _annotations(self) -> Path:
        return self.root / "annotations"

    def image_ids(self, split: str) -> tuple[int, ...]:
        """Return the ids of a split's images, ascending."""
        return tuple(sorted(self._instances(split).file_names))

    def holds_any(self, ids: Collection[int]) -> bool:
        """Return whether any of these images is in the folder."""
        return any(not self._instances(split).file_names.keys().isdisjoint(ids) for split in self.splits)

    def image_id(self, name: str) -> int | None:
        """Return the id of the image that a file name or path means, None when there is none.

        Raises:
            DataError: several images have that name.
        """
        folders = PurePosixPath(name.replace("\\", "/")).parts[:-1]
        splits = [split for split in self.splits if split in folders] or self.splits
        found: set[int] = set()
        for split in splits:
            image_id = self._instances(split).names.find(name)
            if image_id is not None:
                found.add(image_id)
                if has_coco_name(name):
                    break  # no other split has it, and the training annotations take a minute
        if len(found) > 1:
            raise DataError(
                f"{name!r} may be an image of {len(found)} splits of {self.root}; write the split's folder before it"
            )
        return next(iter(found), None)

    def images(self, ids: Collection[int]) -> list[CocoImage]:
        """Return the images of these ids, in this order.

        Raises:
            DataError: counts the ids that the annotations lack, or the image files that are not there.
        """
        home = self._home(ids)
        images = [self._image(image_id, home[image_id]) for image_id in ids]
        absent = [image for image in images if not image.path.is_file()]
        if absent:
            raise DataError(
                f"{len(absent)} of {len(images)} image files are missing below {self.root}, the first is "
                f"{absent[0].path}; {HOW_TO_GET_COCO}"
            )
        return images

    def sizes(self, ids: Collection[int]) -> dict[int, tuple[int, int]]:
        """Return {image id: (width, height)} in pixels, of those of these images whose annotations say it."""
        found = {image_id: self._instances(split).sizes.get(image_id) for image_id, split in self._home(ids).items()}
        return {image_id: size for image_id, size in found.items() if size is not None}

    def file_names(self, ids: Collection[int]) -> dict[int, str]:
        """Return {image id: file name} of these images, as the annotations have it."""
        return {image_id: self._instances(split).file_names[image_id] for image_id, split in self._home(ids).items()}

    def scorable(self, split: str) -> tuple[int, ...]:
        """Return the ids of a split's images that have an instance or a reference caption, ascending."""
        annotated = self._instances(split).objects.keys() | self._captions(split).keys()
        return tuple(image_id for image_id in self.image_ids(split) if image_id in annotated)

    def truth(self, ids: Collection[int], analyser: Analyser) -> dict[int, frozenset[str]]:
        """Return what each image truly shows, as CHAIR takes it (scoring.chair.ground_truth).

        Raises:
            DataError: counts the ids that the annotations lack, or the images without instances and captions.
        """
        truth = ground_truth(self.instances(ids), self.captions(ids), analyser)
        if blank := [image_id for image_id in ids if image_id not in truth]:
            raise DataError(
                f"{len(blank)} of {len(ids)} images have neither instances nor captions in {self.root}, the first is "
                f"{blank[0]}: without truth their captions cannot be scored; leave them off the list"
            )
        return truth

    def instances(self, ids: Collection[int] | None = None) -> Iterator[tuple[int, str]]:
        """Yield (image id, category name) for every annotated object, of these images or of all."""
        for image_id, split in self._home(ids).items():
            for name in self._instances(split).objects.get(image_id, ()):
                yield image_id, name

    def captions(self, ids: Collection[int] | None = None) -> Iterator[tuple[int, str]]:
        """Yield (image id, caption) for every reference caption, of these images or of all.

        Raises:
            DataError: names the captions file that is not there.
        """
        for image_id, split in self._home(ids).items():
            for caption in self._captions(split).get(image_id, ()):
                yield image_id, caption

    def _home(self, ids: Collection[int] | None) -> dict[int, str]:
        """Return the split of every id (of every image when `ids` is None)."""
        if ids is None:
            return {
                image_id: split for split in reversed(self.splits) for image_id in self._instances(split).file_names
            }
        home: dict[int, str] = {}
        lacking = list(dict.fromkeys(ids))
        for split in self.splits:
            file_names = self._instances(split).file_names
            home.update(dict.fromkeys((image_id for image_id in lacking if image_id in file_names), split))
            lacking = [image_id for image_id in lacking if image_id not in file_names]
            if not lacking:
                return home
        raise DataError(
            f"{len(lacking)} of {len(set(ids))} image ids are not in {self.root} "
            f"({', '.join(f'instances_{split}.json' for split in self.splits)}), the first is {lacking[0]}; "
            f"complete the folder or name another list of images; {HOW_TO_GET_COCO}"
        )

    def _image(self, image_id: int, split: str) -> CocoImage:
        instances = self._instances(split)
        file_name = instances.file_names[image_id]
        places = [self.root / split, self.root / "images" / split, self.root / "images", self.root]
        path = next((place / file_name for place in places if (place / file_name).is_file()), places[0] / file_name)
        return CocoImage(image_id, path, tuple(dict.fromkeys(instances.objects.get(image_id, ()))))

    def _instances(self, split: str) -> _Instances:
        path = self._file("instances", split)
        return _read_instances(path, *_version(path))

    def _captions(self, split: str) -> dict[int, tuple[str, ...]]:
        path = self._file("captions", split)
        captions, listed = _read_captions(path, *_version(path))
        if not listed and (lost := captions.keys() - self._instances(split).file_names.keys()):
            raise DataError(
                f"{path}: {len(lost)} of {len(captions)} captioned images are none of instances_{split}.json, the "
                f"first is {min(lost)}"
            )
        return captions

    def _file(self, kind: str, split: str) -> Path:
        path = self._annotations / f"{kind}_{split}.json"
        if not path.is_file():
            raise DataError(f"missing annotation file {path}; {HOW_TO_GET_COCO}")
        return path


@dataclass(frozen=True)
class _Instances:
    file_names: dict[int, str]
    names: ImageNames
    objects: dict[int, tuple[str, ...]]
    sizes: dict[int, tuple[int, int]]


def _version(path: Path) -> tuple[int, int]:
    """Return what changes when a file is replaced, so that a cached reading never outlives its file."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _list(path: Path, content: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where it stands, entry) for the entries of one of a file's lists."""
    if not isinstance(content.get(key), list):
        raise DataError(f"{path}: {key!r} must be a list, not {kind(content[key]) if key in content else 'left out'}")
    for number, entry in enumerate(content[key], start=1):
        if not isinstance(entry, dict):
            raise DataError(f"{path}, {key}, entry {number}: expected an object, not {kind(entry)}")
        yield f"{path}, {key}, entry {number}", entry


def _by_id(path: Path, content: dict[str, Any], key: str) -> dict[int, tuple[str, dict[str, Any]]]:
    """Return {id: (where it stands, entry)} of one of a file's lists."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for place, entry in _list(path, content, key):
        entry["id"] = number = _number(place, entry, "id")
        if number in found:
            raise DataError(f"{place}: 'id' {number} a second time, after {found[number][0]}; keep one")
        found[number] = place, entry
    return found


def _number(place: str, entry: dict[str, Any], key: str) -> int:
    """Return a number of an entry; text of digits, which some converters write, is read as one."""
    return whole_number(entry.get(key), place, repr(key))


def _reference(place: str, entry: dict[str, Any], key: str, known: Collection[int] | None) -> int:
    """Return which image or category an annotation is of, which has to be one of those that the file lists."""
    number = _number(place, entry, key)
    if known is not None and number not in known:
        raise DataError(f"{place}: {key!r} {number} is none of the {len(known)} that the file lists")
    return number


def _by_image(content: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Return a file's annotations by image, as pycocotools indexes them."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = content
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco.imgToAnns  # type: ignore[no-any-return]


# Several tasks of a run read the same folder; what is kept is a small part of what a file holds.
@lru_cache(maxsize=4)
def _read_instances(path: Path, _mtime: int, _size: int) -> _Instances:
    content = read_object(path, _FORM)
    names = {
        number: text_of(entry.get("name"), place, "'name'")
        for number, (place, entry) in _by_id(path, content, "categories").items()
    }
    images = _by_id(path, content, "images")
    file_names = {
        number: text_of(entry.get("file_name"), place, "'file_name'") for number, (place, entry) in images.items()
    }
    for number, (place, entry) in enumerate(_list(path, content, "annotations")):
        entry["image_id"] = _reference(place, entry, "image_id", images)
        entry["category_id"] = _reference(place, entry, "category_id", names)
        entry["id"] = number  # the index needs one each, whatever the file has; nothing here reads it
    objects = {
        image_id: tuple(names[one["category_id"]] for one in found) for image_id, found in _by_image(content).items()
    }
    sizes = {
        number: (_number(*image, "width"), _number(*image, "height"))
        for number, image in images.items()
        if image[1].get("width") is not None and image[1].get("height") is not None
    }
    return _Instances(file_names, ImageNames(file_names.items()), objects, sizes)


@lru_cache(maxsize=4)
def _read_captions(path: Path, _mtime: int, _size: int) -> tuple[dict[int, tuple[str, ...]], bool]:
    """Return a file's captions by image, and whether it lists its images."""
    content = read_object(path, _FORM)
    images = _by_id(path, content, "images") if "images" in content else None
    for number, (place, entry) in enumerate(_list(path, content, "annotations")):
        entry["image_id"] = _reference(place, entry, "image_id", images)
        entry["caption"] = text_of(entry.get("caption"), place, "'caption'")
        entry["id"] = number
    found = _by_image(content).items()
    captions = {image_id: tuple(one["caption"] for one in of_image) for image_id, of_image in found}
    return captions, images is not None
