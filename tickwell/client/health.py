"""What `GET /health` says of the workers, added up for each sink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SinkHealth:
    """The workers of a sink, together.

    `state` is `running` when all of them run, else that of one which does not. `lag` is in
    messages. `rejected` counts by reason, the most frequent first, since each worker's start.
    """

    sink: str
    state: str
    lag: int
    rejected: dict[str, int]

    @property
    def process(self) -> str:
        """The name of its process under `tickwell up`."""
        return f"worker-{self.sink}"


def sinks(health: Mapping[str, Any]) -> list[SinkHealth]:
    """Every sink that has workers alive."""
    return [_added_up(sink, beats) for sink, beats in health.get("workers", {}).items() if beats]


def _added_up(sink: str, beats: Sequence[Mapping[str, Any]]) -> SinkHealth:
    rejected: Counter[str] = Counter()
    for beat in beats:
        rejected.update(beat["rejected"])
    states = [beat["state"] for beat in beats if beat["state"] != "running"]
    return SinkHealth(
        sink=sink,
        state=states[0] if states else "running",
        lag=sum(part["lag"] for beat in beats for part in beat["lag"]),
        rejected=dict(rejected.most_common()),
    )
