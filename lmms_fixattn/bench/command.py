"""The command `lmms-fixattn bench`: one table a batch size, and all of it as JSON."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lmms_fixattn.bench import record, released
from lmms_fixattn.bench.contenders import make_methods
from lmms_fixattn.bench.measure import Timing, Turn, measure
from lmms_fixattn.bench.workload import load
from lmms_fixattn.models import arguments
from lmms_fixattn.models.family import family_of_model


def bench(
    model: str,
    methods: Sequence[str],
    batches: Sequence[int],
    plan: Timing,
    *,
    dtype: str = "auto",
    device: str | None = None,
    attention: str | None = None,
    output: Path | None = None,
    progress: Callable[..., Iterable[Turn]] = lambda turns, title: turns,
) -> Iterator[tuple[str, list[str]]]:
    """Measure methods at each batch size; yield what to print as it comes, and what makes it doubtful.

    Args:
        model: see :func:`lmms_fixattn.bench.workload.load`.
        methods: see :func:`lmms_fixattn.bench.contenders.make_methods`.
        dtype, device, attention: as in ``--model_args``, except that "auto" is float16 wherever there is an
            accelerator.
        output: a JSON file, written anew after each batch size.
        progress: wraps the turns of a batch size, as (turns, title).

    Raises:
        ValueError: what cannot be meant or does not fit the model.
        OSError: a file that cannot be written.
    """
    place = arguments.device(device)
    kind = arguments.dtype(dtype, place, torch.float16)
    workload = load(model, kind, place, arguments.attention(attention))
    with tempfile.TemporaryDirectory() as folder:
        text = family_of_model(workload.model).text_model
        made = make_methods(methods, text, Path(folder))
        doubts = []
        if plan.released and (why := released.refusal(workload.model)):
            plan = dataclasses.replace(plan, released=False)
            doubts = [f"measured without the released-style loops: {why}"]
        stated = record.about(workload, place) | {"plan": dataclasses.asdict(plan)}
        yield f"{record.headline(stated)}\n{plan}", doubts
        rows: list[dict[str, Any]] = []
        for turn, batch in enumerate(batches, start=1):
            bar = partial(progress, title=f"batch size {batch} ({turn} of {len(batches)})")
            found = measure(workload, made, batch, plan, stated["bandwidth"]["limit"], bar)
            rows += found
            if output:
                output.write_text(json.dumps({**stated, "rows": rows}, indent=1) + "\n", encoding="utf-8")
            yield f"\n{record.table(found)}", record.remarks(found)
