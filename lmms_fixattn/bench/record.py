"""Write a measurement down: rows with what they were measured on, as JSON and as a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lmms_fixattn.bench.limit import measure_bandwidth
from lmms_fixattn.bench.machine import describe
from lmms_fixattn.bench.workload import Workload
from lmms_fixattn.models.family import family_of_model, text_model
from lmms_fixattn.models.transformers_api import attention_in_use
from lmms_fixattn.report import terminal

_KIND = "lmms-fixattn bench"


def about(workload: Workload, device: torch.device) -> dict[str, Any]:
    """Measure the bandwidth, and say on what machine and model everything is measured."""
    inputs, config = workload.prompts(1), workload.model.config
    return {
        "kind": _KIND,
        "machine": describe(device),
        "bandwidth": measure_bandwidth(device),
        "model": {
            "name": workload.name,
            "text_model": dataclasses.asdict(family_of_model(workload.model).text_model),
            "parameters": sum(parameter.numel() for parameter in workload.model.parameters()),
            "dtype": str(workload.model.dtype).removeprefix("torch."),
            "attention": attention_in_use(text_model(workload.model)),
            "prompt_tokens": inputs["input_ids"].shape[1],
            "image_tokens": int((inputs["input_ids"] == config.image_token_id).sum()),
        },
    }


def write(path: Path, stated: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows so far as JSON."""
    path.write_text(json.dumps({**stated, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def headline(stated: Mapping[str, Any]) -> str:
    """Say in two lines on what model and machine everything was measured."""
    machine, model = stated["machine"], stated["model"]
    return (
        f"{model['name']}, {model['parameters'] / 1e6:.4g} million parameters, {model['dtype']}, {model['attention']}; "
        f"{model['prompt_tokens']} prompt tokens, {model['image_tokens']} of them an image's\n"
        f"{machine['device']}, {machine['threads']} threads on {machine['cores']} cores, "
        f"{stated['bandwidth']['limit'] / 1e9:.4g} GB/s measured; torch {machine['versions']['torch']}, "
        f"transformers {machine['versions']['transformers']}, lmms-fixattn {machine['versions']['lmms-fixattn']}"
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table, without the columns of which nothing was measured.

    ``x`` is times the unmodified model's, ``x released`` the tokens a second over the released-style loop's.
    """
    columns = [
        ("batch", "batch", "d"),
        ("prefill\nms", "prefill_ms", ".4g"),
        ("x", "prefill_ratio", ".3f"),
        ("ms a\nstep", "step_ms", ".4g"),
        ("x", "step_ratio", ".3f"),
        ("tokens/s", "tokens_per_second", ".4g"),
        ("x\nreleased", "speedup", ".2f"),
        ("of\nlimit", "bandwidth_share", ".0%"),
        ("peak\nGiB", "peak_gib", ".2f"),
    ]
    columns = [column for column in columns if any(row[column[1]] is not None for row in rows)]
    cells = [
        [row["method"], *("" if row[name] is None else format(row[name], spec) for _, name, spec in columns)]
        for row in rows
    ]
    header = ["method", *(title for title, _, _ in columns)]
    return terminal.table(header, cells, [27, *[None] * len(columns)], ["left", *["right"] * len(columns)])


def remarks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what makes figures of these rows doubtful."""
    return [
        f"{row['method']}, batch {row['batch']}: compiled {row['compilations']} graphs in the rounds that count, whose "
        "seconds are in its times"
        for row in rows
        if row["compilations"]
    ]
