"""What the workers say of themselves, added up for each sink, and what `status` makes of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from registry.formats.heartbeat import Heartbeat, PartitionLag
from tickwell.client.health import SinkHealth, sinks
from tickwell.commands.status import lines

LAG = (PartitionLag("t", 0, 1, 4, 3, 0.1), PartitionLag("t", 1, 1, 5, 4, 0.1))


def health(*beats: Heartbeat) -> dict[str, Any]:
    """An answer of `GET /health` in which these are alive."""
    told = [msgspec.to_builtins(beat) for beat in beats]
    return {
        "status": "degraded",
        "stores": {"redis": "ok"},
        "workers": {sink: [b for b in told if b["sink"] == sink] for sink in ("online", "offline")},
    }


def beat(instance: str, state: str, **more: Any) -> Heartbeat:
    return Heartbeat("online", instance, 1, 0.0, state, 0.0, **more)


@pytest.mark.parametrize(
    ("beats", "state", "lag", "waits_for"),
    [
        ([beat("a", "running", lag=LAG), beat("b", "running")], "running", 7, ""),
        ([beat("a", "starting")], "starting", None, ""),
        ([beat("a", "retrying", error="Redis: refused")], "retrying", None, "Redis: refused"),
        ([beat("a", "retrying", error="refused", lag=LAG)], "retrying", 7, "refused"),
        (
            [beat("a", "running", lag=LAG), beat("b", "retrying", error="refused")],
            "retrying",
            None,
            "b: refused",
        ),
        ([], "silent", None, "no worker has sent the server a heartbeat"),
    ],
)
def test_who_is_not_well_says_why_and_no_number_that_it_does_not_know(
    beats: list[Heartbeat], state: str, lag: int | None, waits_for: str
) -> None:
    answer = health(*beats)
    online, offline = sinks(answer)
    assert online == SinkHealth("online", state, lag, {}, waits_for)
    assert offline.state == "silent"
    (line,) = (line for line in lines(answer) if line.startswith("online: "))
    assert waits_for in line
    assert ("7 messages behind" in line) is (lag == 7)
    assert ("not known how far behind" in line) is (lag is None)
    assert (state in line) is (state != "running")


def test_a_store_and_a_server_that_do_not_answer_are_said() -> None:
    answer = health() | {"stores": {"redis": "ok", "postgres": "no answer in 3 s"}}
    assert "postgres: no answer in 3 s" in lines(answer)
    assert not [line for line in lines(answer) if line.startswith("redis")]
    assert lines({"status": "unavailable", "detail": "no answer from http://h"}) == [
        "no answer from http://h"
    ]


def test_what_workers_say_of_their_broker_is_shown() -> None:
    answer = health(beat("a", "running")) | {"strangers": ["t[1] is held"], "warnings": ["loses"]}
    assert lines(answer)[-2:] == ["t[1] is held", "warning: loses"]


def test_a_difference_is_shown() -> None:
    answer = health(beat("a", "running")) | {"differences": ["rows: value of f of A"]}
    assert lines(answer)[-1] == "DIFFERS: rows: value of f of A"
