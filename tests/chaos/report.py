"""A run's report, in Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import psutil

from tests.chaos.run import LAGGING_SECONDS, SLACK_SECONDS, Result

GUARANTEES = {
    "ticks lost": ("row lost", "rejected tick lost", "not relayed", "missing in Redis"),
    "ticks counted twice": ("row twice", "accepted and rejected"),
    "rows that no tick explains": (
        "unexplained row",
        "unexplained rejection",
        "unexplained in Redis",
        "relayed without a tick",
    ),
    "rows that differ from the oracle": (
        "row differs",
        "value differs",
        "rejected tick differs",
        "relayed differently",
    ),
    "online rows that are not Postgres' newest, to the bit": (
        "Redis is not the newest row",
        "bits differ",
        "corrupt in Redis",
        "window state",
        "members",
        "last close",
    ),
    "online values that stepped back": ("stepped back",),
    "values served that no row explains": ("value without a row",),
    "stale values served as ok": ("stale served as ok", "behind served as ok"),
    "cells of training sets that differ from the oracle": ("training set differs",),
    "answers of the past that changed": ("answer of the past changed",),
    "repaired or loaded rows that differ from the oracle": ("repair", "revision", "load"),
}


BOUND = (
    "A value is stale when it is older than its `max_age`, or when Kafka has had a newer tick of "
    f"its entity for more than {LAGGING_SECONDS + SLACK_SECONDS:g} s: {LAGGING_SECONDS:g} s, from "
    f"which on it must be `lagging`, and {SLACK_SECONDS:g} s to notice."
)
"""By what served values are judged."""


def report(result: Result) -> str:
    """What a run did and found."""
    options, looked = result.options, result.findings.looked
    faults, day = sum(result.faults.values()), f"{datetime.now(UTC):%Y-%m-%d}"
    parts = [
        f"# Fault run, seed {options.seed}",
        f"`{command(options.seed, options.minutes, options.cluster)}` on {day}, {_machine()}.",
        "No difference was found." if result.clean else "Differences were found; they are below.",
        _table(("guarantee", "violations"), _guarantees(result)),
        BOUND,
        f"## Faults: {faults} of {len(result.faults)} classes in "
        f"{result.seconds['faults'] / 60:.1f} minutes",
        _table(("class", "times"), sorted(result.faults.items(), key=lambda item: -item[1])),
        "Changes of the registry meanwhile: "
        + (", ".join(f"{what} ({n})" for what, n in sorted(result.changes.items())) or "none")
        + ".",
        "Done to history meanwhile: "
        + (", ".join(f"{what} ({n})" for what, n in sorted(result.history.items())) or "none")
        + ".",
        "Processes that ended by themselves and were started again: "
        + (", ".join(f"{who} ({n})" for who, n in sorted(result.ended.items())) or "none")
        + ".",
        "## Load",
        _table(
            ("what", "count"),
            (
                ("messages that the broker confirmed", result.load.delivered),
                ("messages that it did not", result.load.refused),
                ("transactions committed", result.load.committed),
                ("transactions aborted", result.load.aborted),
                ("questions over HTTP", result.reads["http"]),
                ("readings of all rows in Redis", result.reads["redis"]),
            ),
        ),
        "## What the checker held against the raw log",
        _table(("what", "count"), looked.items()),
        "Seconds: "
        + ", ".join(f"{phase} {seconds:.0f}" for phase, seconds in result.seconds.items())
        + ".",
    ]
    if not result.clean:
        parts.append("## Differences")
        for kind, examples in result.findings.examples.items():
            parts.append(f"{kind}: {result.findings.differences[kind]}")
            parts.append("\n".join(f"- {each}" for each in examples))
    return "\n\n".join(parts) + "\n"


def command(seed: int, minutes: float, cluster: bool = False) -> str:
    """What repeats a run."""
    return f"make chaos SEED={seed} MINUTES={minutes:g}{' CLUSTER=yes' if cluster else ''}"


def _guarantees(result: Result) -> list[tuple[str, int]]:
    found = result.findings.differences
    named = {kind for kinds in GUARANTEES.values() for kind in kinds}
    rows = [(what, sum(found[kind] for kind in kinds)) for what, kinds in GUARANTEES.items()]
    return [*rows, ("anything else", sum(n for kind, n in found.items() if kind not in named))]


def _table(head: tuple[str, str], rows: Iterable[tuple[str, int]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---:|"]
    lines += [f"| {what} | {count:,} |" for what, count in rows]
    return "\n".join(lines)


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
