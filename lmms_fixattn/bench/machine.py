"""What a measurement was made on, in words and numbers."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from lmms_fixattn.versions import installed


def describe(device: torch.device) -> dict[str, Any]:
    """Return the device's name, and the cores, threads and library versions behind it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {
        "device": _processor() if device.type == "cpu" else f"{device.type}",
        "cores": cores,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"device": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
        found |= {"cuda": torch.version.cuda}
    return {**found, "versions": installed()}


def _processor() -> str:
    """Return the processor's name where the system tells it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
