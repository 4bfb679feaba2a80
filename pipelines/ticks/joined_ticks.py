"""The ticks of a run that was decoded in parts, each with texts of its own behind the run's.

Only the texts that ticks refer to are kept: what a part made JSON may be many times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.kafka.run import Run
from pipelines.runtime.array_types import Int64s
from pipelines.ticks.columns import Ticks

SPANS = ("keys", "raw", "seq_text")
COLUMNS = ("offset", "index", "tick_time", "seq", "op", "fields", "known_at")


def compact(ticks: Ticks, own: int) -> Ticks:
    """The same ticks without the texts that none refers to, behind the first `own` bytes."""
    if len(ticks.data) == own:
        return ticks
    texts, behind = [ticks.data[:own]], own
    moved: dict[str, Any] = {}
    for name in SPANS:
        spans = getattr(ticks, name).copy()
        flat = spans.reshape(-1, 2)
        which = flat[:, 0] >= own
        sizes = flat[which, 1] - flat[which, 0]
        ends = behind + np.cumsum(sizes)
        total = int(sizes.sum())
        from_there = np.repeat(flat[which, 0] - (ends - sizes), sizes)
        texts.append(ticks.data[from_there + np.arange(behind, behind + total)])
        flat[which] = np.stack([ends - sizes, ends], axis=1)
        behind += total
        moved[name] = spans
    return replace(ticks, data=np.concatenate(texts), **moved)


def joined(run: Run, parts: Sequence[Ticks]) -> Ticks:
    """The ticks of `run`, whose parts meet; the data of each begins with the run's own bytes."""
    if len(parts) == 1:
        return parts[0]
    own = len(run.data)
    firsts = np.cumsum([0, *(len(part.run) for part in parts)])
    shifts = np.cumsum([0, *(len(part.data) - own for part in parts)])

    def spans(name: str) -> Int64s:
        each = (getattr(part, name) for part in parts)
        return np.concatenate(
            [np.where(of >= own, of + by, of) for of, by in zip(each, shifts, strict=False)]
        )

    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS
    }
    return replace(
        parts[0],
        run=run,
        data=np.concatenate([run.data, *(part.data[own:] for part in parts)]),
        keys=spans("keys"),
        raw=spans("raw"),
        seq_text=spans("seq_text"),
        record=np.concatenate([part.record + by for part, by in zip(parts, firsts, strict=False)]),
        rejected=[rejected for part in parts for rejected in part.rejected],
        passed_over=sum(part.passed_over for part in parts),
        **columns,
    )
