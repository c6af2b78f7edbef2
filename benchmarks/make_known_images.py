"""Make lmms_fixattn/data/known_images.tsv, the truth of the known lists, anew and compare it with the one there.

    python benchmarks/make_known_images.py --coco /data/coco
    python benchmarks/make_known_images.py --ground-truth truth.json.gz     # {image id: [node words]}, without sizes

Reads the folder's annotations alone. The analyser is the reference scorer's (nltk; docs/chair.md says what it needs).
Prints how many images the lists have and in how many the new truth differs from the packaged one; with --output FILE it
writes the file, and prints the digest that belongs into lmms_fixattn/data/known_images.py.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

from lmms_fixattn.cli.truth import add_truth, make_analyser
from lmms_fixattn.data import image_lists
from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.data.known_images import ANALYSER, PATH, Known, loads
from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring.files.reading import read_ground_truth


def dumps(images: Mapping[int, Known]) -> bytes:
    """Return the file's content for these images; equal images give equal bytes."""
    lines = []
    for image_id, (objects, size) in sorted(images.items()):
        pixels = "-" if size is None else f"{size[0]}x{size[1]}"
        lines.append(f"{image_id}\t{pixels}\t{', '.join(sorted(objects))}\n")
    return "".join(lines).encode()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_truth(parser, required=True)
    parser.add_argument("--output", type=Path, help="file to write")
    arguments = parser.parse_args()
    ids = sorted({image_id for name in image_lists.names() for image_id in image_lists.load(name).ids})
    try:
        if arguments.coco is None:
            truth, sizes = read_ground_truth(arguments.ground_truth), {}
        else:
            folder = CocoFolder(arguments.coco)
            truth, sizes = folder.truth(ids, make_analyser(ANALYSER)), folder.sizes(ids)
    except UserError as error:
        sys.exit(f"error: {error}")
    if lacking := [image_id for image_id in ids if image_id not in truth]:
        sys.exit(f"error: {len(lacking)} of {len(ids)} images have no truth there, the first is {lacking[0]}")
    made = {image_id: Known(tuple(sorted(truth[image_id])), sizes.get(image_id)) for image_id in ids}
    content = dumps(made)
    packaged = loads(PATH.read_bytes()) if PATH.is_file() else {}
    differing = [i for i, known in packaged.items() if i in made and known.objects != made[i].objects]
    sized = sum(known.size is not None for known in made.values())
    print(f"{len(ids)} images, {sized} with their size; {len(content)} bytes")
    print(f"packaged: {len(packaged)} images; other objects in {len(differing)} of them {differing[:10]}")
    if arguments.output is not None:
        arguments.output.write_bytes(content)
        print(f'{arguments.output}: SHA256 = "{hashlib.sha256(content).hexdigest()}"')


if __name__ == "__main__":
    main()
