"""What was measured: one `Run` for each number, written to JSON as soon as it is known."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct


class Failed(Exception):
    """A measurement came to nothing, and why."""


class Run(Struct, frozen=True, kw_only=True):
    """One number of one round.

    `value` is in `unit`; `seconds` and `ticks` are what it was computed from, where it is a rate.
    `cpu` has the seconds of processor time that each process took meanwhile, by name, beside
    `seconds` of wall time: a stall shows as both idle. `memory_mb` is the resident memory of the
    subject at the end, `load` the machine's load average then: over the number of cores, someone
    had to wait. A run that failed has an `error` and no value.
    """

    measure: str = ""
    subject: str = ""
    round: int = 1
    value: float | None = None
    unit: str = "ticks/s"
    ticks: int = 0
    seconds: float = 0.0
    cpu: dict[str, float] = {}
    memory_mb: float | None = None
    load: float = 0.0
    detail: dict[str, Any] = {}
    error: str = ""


class Report(Struct, kw_only=True):
    """Everything of one invocation: where, with what, and every run in the order it was made."""

    machine: dict[str, Any]
    options: dict[str, Any]
    runs: list[Run] = []


class Recorder:
    """Adds runs to a report and keeps `file` up to date with it."""

    def __init__(self, report: Report, file: Path) -> None:
        self.report = report
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)

    def add(self, run: Run) -> Run:
        """Record a run and say it."""
        self.report.runs.append(run)
        packed = msgspec.json.format(msgspec.json.encode(self.report), indent=1)
        self._file.write_bytes(packed + b"\n")
        told = run.error or f"{run.value:,.6g} {run.unit}"
        busy = ", ".join(f"{name} {seconds:.1f}" for name, seconds in run.cpu.items())
        print(
            f"round {run.round} {run.measure}, {run.subject}: {told}"
            + (f" ({run.seconds:.1f} s; processor s: {busy})" if busy else ""),
            file=sys.stderr,
            flush=True,
        )
        return run

    def attempt(self, measure: str, subject: str, number: int, work: Callable[[], Run]) -> bool:
        """Do and record one run; what goes wrong is recorded in its place. Whether it went well."""
        try:
            run = work()
        except Exception as error:  # one run that fails must not cost the hour's others
            traceback.print_exc()
            run = Run(measure=measure, error=f"{type(error).__name__}: {error}")
        load = round(os.getloadavg()[0], 2)
        run = msgspec.structs.replace(
            run, measure=measure, subject=subject, round=number, load=load
        )
        self.add(run)
        return not run.error
