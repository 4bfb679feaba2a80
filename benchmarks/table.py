"""The tables in Markdown from what was recorded: `python -m benchmarks.table results.json`."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from benchmarks import (
    applies,
    builds,
    history_work,
    hits,
    lake_sets,
    search,
    serving_table,
    training,
    views,
)
from benchmarks.growth import BEFORE
from benchmarks.results import Report, Run

ONLINE, OFFLINE = "online worker", "offline worker"
LIMIT = "limit: COPY to staging, insert on conflict"
DIRECT = "COPY straight into the table"
REPLAY = "replay, one job"
BACKFILL = "backfill of one version"
BACKFILL_KAFKA = "backfill of one version, from Kafka"
FIELDS, FIELDS_IN_ORDER = "raw fields by binary COPY", "raw fields, by entity and event time"
STOCK, STOCK_INSERT = "stock Faust", "stock Faust, INSERT"
BYTEWAX, QUIX = "Bytewax", "Quix Streams"
PRODUCE = "`tickwell produce`, checks included"
CSV_PRODUCER = "csv.DictReader, json.dumps, confluent-kafka"
ERROR_LENGTH = 300
STEADY, TWO = "one online worker, all partitions moving", "two online workers"


def tables(report: Report) -> str:
    """A description of the machine, and a table for each measure that was made."""
    parts = [_machine(report)]
    makers: dict[str, Callable[[Sequence[Run]], list[str]]] = {
        "online": lambda runs: _rates(runs, "online worker / it", (ONLINE,)),
        "offline": lambda runs: _rates(runs, "offline worker / it", (OFFLINE,)),
        "latency": _latency,
        "memory": _memory,
        "serving": serving_table.table,
        "hits": hits.table,
        "growth": _growth,
        "takeover": _takeover,
        "files": lambda runs: _rates(runs, "tickwell produce / it", (PRODUCE,)),
        "views": views.table,
        "search": search.table,
        "training": training.table,
        "lake sets": lake_sets.table,
        "backfill": lambda runs: _rates(runs, "backfill / it", (BACKFILL,)),
        "applies": applies.table,
        "history": history_work.table,
        "builds": builds.table,
    }
    for measure, make in makers.items():
        runs = [run for run in report.runs if run.measure == measure]
        if runs:
            parts.append("\n".join([f"### {measure.capitalize()}", "", *make(runs)]))
    failed = [run for run in report.runs if run.error]
    if failed:
        lines = [
            f"- {run.measure}, {run.subject}, round {run.round}: "
            f"{' '.join(run.error.split())[:ERROR_LENGTH]}"
            for run in failed
        ]
        parts.append("\n".join(["### Failed", "", *lines]))
    return "\n\n".join(parts) + "\n"


def _machine(report: Report) -> str:
    m, options = report.machine, report.options
    libraries = ", ".join(f"{k} {v}" for k, v in {**m["libraries"], **m["peers"]}.items())
    return (
        f"{m['date']}, commit {m['commit']}: {m['processor']}, {m['cores']} cores, "
        f"{m['memory_gb']} GB, {m['system']}, Linux {m['kernel']}; {m['broker']}, Valkey "
        f"{m['valkey']}, PostgreSQL {m['postgres']}, Python {m['python']}; {libraries}.\n\n"
        f"{options['ticks']:,} price ticks of 100 symbols, lz4, prices {options['prices']}; "
        f"{options['rounds']} rounds, interleaved."
    )


def _rates(runs: Sequence[Run], title: str, against: tuple[str, ...]) -> list[str]:
    """Rates by subject; ratios are those of the same round, and of them the median."""
    rounds = {(run.subject, run.round): run.value for run in runs if run.value is not None}
    lines = [
        f"| | ticks/s, median | best | {title}, median (range) | processor of it, cores | MB |",
        "|---|---|---|---|---|---|",
    ]
    for subject, found in _by_subject(runs):
        base = STEADY if subject == TWO else against[0]
        ratios = [
            rounds[base, run.round] / run.value
            for run in found
            if run.value and (base, run.round) in rounds
        ]
        if subject == TWO:
            ratios = [1 / ratio for ratio in ratios]
        mark = " (two / one)" if subject == TWO else ""
        lines.append(
            f"| {subject} | {_median(run.value for run in found):,.0f} "
            f"| {max(run.value or 0 for run in found):,.0f} "
            f"| {_ratio(ratios) if subject not in (*against, STEADY) else ''}{mark} "
            f"| {_cores(found)} | {_memory_of(found)} |"
        )
    return lines


def _latency(runs: Sequence[Run]) -> list[str]:
    """Percentiles of each round; of them the median, and the best and worst round's."""
    lines = [
        "| ticks due to read over HTTP, ms: median (range) of the rounds | p50 | p99 | p99.9 | max "
        "| between answers, p99 | sent late, p99 | ticks a round |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for subject, found in _by_subject(runs):
        latencies = [run.detail["latency_ms"] for run in found]
        columns = [[ms[name] for ms in latencies] for name in ("p50", "p99", "p999", "max")]
        columns += [
            [run.detail[name]["p99"] for run in found]
            for name in ("between_answers_ms", "sent_late_ms")
        ]
        shown = " | ".join(_milliseconds(column) for column in columns)
        lines.append(f"| {subject} | {shown} | {found[-1].ticks:,} |")
    return lines


def _milliseconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _memory(runs: Sequence[Run]) -> list[str]:
    lines = ["| resident, MB | first | last | peak | |", "|---|---|---|---|---|"]
    for subject, found in _by_subject(runs):
        for run in found:
            d = run.detail
            more = f"{run.ticks:,} ticks, {d['rate']:,.0f}/s" if run.ticks else ""
            more = more or f"{d['answers_a_second']:,.0f} answers/s"
            lines.append(
                f"| {subject} | {d['first_mb']:,.0f} | {d['last_mb']:,.0f} | {d['peak_mb']:,.0f} "
                f"| {more} |"
            )
    return lines


def _growth(runs: Sequence[Run]) -> list[str]:
    """Rates by subject and number of entities; ratios as in `_rates`, to this build's worker."""
    rounds = {(run.subject, run.round): run.value for run in runs if run.value is not None}
    lines = [
        "| | entities | ticks | ticks/s, median | best | worker / it, median (range) "
        "| processor µs a tick: it, store | MB at the most | store, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for subject, found in _by_subject(runs):
        name, _, entities = subject.partition(", ")
        detail, sink = found[-1].detail, "offline" if "offline" in name else "online"
        own = f"{sink} worker, {entities.removeprefix(f'{BEFORE}, ')}"
        ratios = [
            rounds[own, run.round] / run.value
            for run in found
            if subject != own and run.value and (own, run.round) in rounds
        ]
        stored = detail.get("redis_mb") or detail.get("postgres_mb")
        lines.append(
            f"| {subject.rpartition(', ')[0]} | {detail['entities']:,} | {found[-1].ticks:,} "
            f"| {_median(run.value for run in found):,.0f} "
            f"| {max(run.value or 0 for run in found):,.0f} "
            f"| {_ratio(ratios)} "
            f"| {_microseconds(found, 'worker', 'peer')}, "
            f"{_microseconds(found, 'postgres' if sink == 'offline' else 'redis-warm')} "
            f"| {max(run.detail['peak_mb'] for run in found):,.0f} "
            f"| {f'{stored:,.0f}' if stored else ''} |"
        )
    return lines


def _microseconds(runs: Sequence[Run], *names: str) -> str:
    """Processor time a tick of the processes of these names, the median of the runs."""
    seconds = [(sum(run.cpu.get(name, 0) for name in names), run.ticks) for run in runs]
    return f"{statistics.median(total / ticks * 1e6 for total, ticks in seconds):.3g}"


def _takeover(runs: Sequence[Run]) -> list[str]:
    lines = ["| seconds | median | least | most |", "|---|---|---|---|"]
    for subject, found in _by_subject(runs):
        values = [run.value or 0 for run in found]
        lines.append(
            f"| {subject} | {statistics.median(values):.2f} | {min(values):.2f} "
            f"| {max(values):.2f} |"
        )
    return lines


def _by_subject(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """The runs of each subject that came to something, in the order of their first."""
    subjects: dict[str, list[Run]] = {}
    for run in runs:
        if not run.error:
            subjects.setdefault(run.subject, []).append(run)
    return list(subjects.items())


def _median(values: Iterable[float | None]) -> float:
    return statistics.median(value for value in values if value is not None)


def _ratio(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
    digits = 2 if statistics.median(ratios) < 10 else 0
    shown = [
        f"{value:,.{digits}f}" for value in (statistics.median(ratios), min(ratios), max(ratios))
    ]
    return f"{shown[0]} × ({shown[1]} to {shown[2]})"


def _cores(runs: Sequence[Run]) -> str:
    """Cores at work: what is measured, then broker and stores together."""
    services = ("kafka", "tansu", "redis-warm", "redis-hot", "postgres")
    own, others = [], []
    for run in runs:
        if run.cpu and run.seconds:
            there = sum(seconds for name, seconds in run.cpu.items() if name in services)
            own.append((sum(run.cpu.values()) - there) / run.seconds)
            others.append(there / run.seconds)
    return f"{statistics.median(own):.2f} + {statistics.median(others):.2f}" if own else ""


def _memory_of(runs: Sequence[Run]) -> str:
    found = [run.memory_mb for run in runs if run.memory_mb is not None]
    return f"{max(found):,.0f}" if found else ""


if __name__ == "__main__":
    print(tables(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Report)), end="")
