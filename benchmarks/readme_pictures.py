"""Make the README's pictures of the packaged model again: docs/images/recall.png, page.png and attention.png.

    python benchmarks/readme_pictures.py      # a few minutes, offline; page.png takes a Chromium

What the package itself writes, from `lmms-fixattn sweep demo` and `lmms-fixattn inspect attention`; the page is
photographed as a browser shows it. docs/images/evidence.png is written by `lmms-fixattn evidence` (docs/evidence.md).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from lmms_fixattn.cli import main as command

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.append(str(ROOT / "tests" / "support"))


def main() -> None:
    from browser import photograph

    with tempfile.TemporaryDirectory() as folder:
        sweep, drawn = Path(folder) / "sweep", Path(folder) / "drawn"
        for arguments in (
            ["sweep", "demo", "--output", str(sweep)],
            ["inspect", "attention", "--method", "vanilla", "fixattn", "--output", str(drawn)],
        ):
            if status := command(arguments):
                sys.exit(status)
        shutil.copy(sweep / "recall.png", IMAGES / "recall.png")
        shutil.copy(drawn / "attention.png", IMAGES / "attention.png")
        page = (sweep / "page.html").read_text(encoding="utf-8")
        alone = "<style>body > *:not(main), main > *:not(#samples) { display: none }</style></head>"
        (sweep / "captions.html").write_text(page.replace("</head>", alone, 1), encoding="utf-8")
        photograph(sweep / "captions.html", IMAGES / "page.png", 1280, 760)


if __name__ == "__main__":
    main()
