"""Check what is in a wheel: every file of the package and of tasks/ that git tracks, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile

tracked = subprocess.run(
    ["git", "ls-files", "lmms_fixattn", "tasks"], capture_output=True, text=True, check=True
).stdout.splitlines()
expected = {f"lmms_fixattn/{path}" if path.startswith("tasks/") else path for path in tracked}
with zipfile.ZipFile(sys.argv[1]) as wheel:
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    size = sum(entry.compress_size for entry in wheel.infolist())
problems = [f"missing: {name}" for name in sorted(expected - found)] + [
    f"not tracked: {name}" for name in sorted(found - expected)
]
if problems:
    sys.exit(f"{sys.argv[1]} does not hold what the checkout holds:\n" + "\n".join(problems))
print(f"{sys.argv[1].rpartition('/')[2]}: {len(found)} files, {size / 1e6:.1f} MB, as tracked")
