"""What `GET /health` says of the workers, added up for each sink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SinkHealth:
    """The workers of a sink, together.

    `state` is `running` when all of them run, else that of one which does not, and `silent` where
    none is alive. `lag` is in messages, None where a worker does not know it, as before it has
    reached its store. `rejected` counts by reason, the most frequent first, since each worker's
    start, and `passed_over` the messages of other kinds. `waits_for` says why those that do not run
    do not, "" where they gave no reason.
    """

    sink: str
    state: str
    lag: int | None
    rejected: dict[str, int]
    waits_for: str = ""
    passed_over: int = 0

    @property
    def process(self) -> str:
        """The name of its process under `tickwell up`."""
        return f"worker-{self.sink}"


def sinks(health: Mapping[str, Any]) -> list[SinkHealth]:
    """Every sink that the server knows of."""
    return [_added_up(sink, beats) for sink, beats in health.get("workers", {}).items()]


def _added_up(sink: str, beats: Sequence[Mapping[str, Any]]) -> SinkHealth:
    if not beats:
        return SinkHealth(sink, "silent", None, {}, "no worker has sent the server a heartbeat")
    rejected: Counter[str] = Counter()
    for beat in beats:
        rejected.update(beat["rejected"])
    waiting = [beat for beat in beats if beat["state"] != "running"]
    unknown = any(not beat["lag"] for beat in waiting)
    return SinkHealth(
        sink=sink,
        state=waiting[0]["state"] if waiting else "running",
        lag=None if unknown else sum(part["lag"] for beat in beats for part in beat["lag"]),
        rejected=dict(rejected.most_common()),
        waits_for="; ".join(
            f"{beat['instance']}: {beat['error']}" if len(beats) > 1 else beat["error"]
            for beat in waiting
            if beat["error"]
        ),
        passed_over=sum(beat.get("passed_over", 0) for beat in beats),
    )
