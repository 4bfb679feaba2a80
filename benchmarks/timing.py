"""From the first tick that is done to the last, or for a fixed time: ticks, seconds, processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Child
from benchmarks.results import Failed

POLL_SECONDS = 0.01
STALLED_SECONDS = 60.0
"""Without any progress, start-up included; then something is broken."""

Done = Callable[[], tuple[int, float]]
"""How many ticks are done, and at which moment of the monotonic clock that was so."""

Processor = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Span:
    """`ticks` were done in `seconds`; processor seconds by process; whether that was all."""

    ticks: int
    seconds: float
    cpu: dict[str, float]
    complete: bool

    @property
    def rate(self) -> float:
        return self.ticks / self.seconds if self.seconds else 0.0


def span(
    done: Done, target: int, limit: float, children: list[Child], processor: Processor
) -> Span:
    """Time from the first progress until `target` ticks are done, or `limit` seconds.

    Raises `Failed` when a child ends or nothing moves for a minute.
    """
    began = _await_progress(done, done()[0], children)
    before = dict(processor())
    last, moved = began, time.monotonic()
    while last[0] < target and last[1] - began[1] < limit:
        time.sleep(POLL_SECONDS)
        _check(children)
        now = done()
        if now[0] != last[0]:
            last, moved = now, time.monotonic()
        elif time.monotonic() - moved > STALLED_SECONDS:
            raise Failed(f"nothing moves at {last[0]:,} of {target:,} ticks")
    after = processor()
    if last[1] <= began[1]:
        raise Failed(f"all {target:,} ticks were done at once: too few to time")
    cpu = {name: round(after[name] - before[name], 3) for name in after if name in before}
    return Span(last[0] - began[0], last[1] - began[1], cpu, last[0] >= target)


def _await_progress(done: Done, first: int, children: list[Child]) -> tuple[int, float]:
    deadline = time.monotonic() + STALLED_SECONDS
    while (now := done())[0] == first:
        _check(children)
        if time.monotonic() > deadline:
            words = children[0].log.read_text(errors="replace")[-1000:] if children else ""
            raise Failed(f"nothing was done in {STALLED_SECONDS:g} s: {words}")
        time.sleep(POLL_SECONDS)
    return now


def _check(children: list[Child]) -> None:
    for child in children:
        child.check()


def counted(log: Path) -> Done:
    """The progress that a peer prints (`peers/progress.py`)."""

    def done() -> tuple[int, float]:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
        for line in reversed(lines[:-1]):  # the last one may be half written
            words = line.split()
            if len(words) == 2 and words[0].isdigit():
                return int(words[0]), float(words[1])
        return 0, time.monotonic()

    return done
