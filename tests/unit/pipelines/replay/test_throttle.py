"""When a replay yields to live."""

from __future__ import annotations

import pytest

from pipelines.replay.throttle import ALIVE_SECONDS, BEHIND_SECONDS, why_to_pause
from registry.formats.heartbeat import Heartbeat, PartitionLag

NOW = 1_700_000_000.0


def beat(sink: str, *behind: float, state: str = "running", at: float = NOW) -> Heartbeat:
    lag = tuple(
        PartitionLag("ticks.price", number, 0, 10, 10, seconds)
        for number, seconds in enumerate(behind)
    )
    return Heartbeat(sink, "one", 1, at, state, NOW, lag=lag)


@pytest.mark.parametrize(
    ("beats", "why"),
    [
        ([], None),
        ([beat("online", 0.0), beat("offline")], None),
        ([beat("online", BEHIND_SECONDS)], None),
        ([beat("online", 0.0, 12.4), beat("offline", 7.0)], "the online worker is 12 s behind"),
        ([beat("online", 6.0), beat("offline", 0.0, 70.0)], "the offline worker is 70 s behind"),
        ([beat("offline", state="retrying")], "the offline worker waits for its store"),
        ([beat("offline", 900.0, at=NOW - ALIVE_SECONDS - 1)], None),
        ([beat("online", state="starting")], None),
    ],
    ids=[
        "no worker",
        "up to date",
        "at the bound",
        "a lag",
        "the worst",
        "refused",
        "dead",
        "starts",
    ],
)
def test_why_a_replay_pauses(beats: list[Heartbeat], why: str | None) -> None:
    assert why_to_pause(beats, NOW) == why
