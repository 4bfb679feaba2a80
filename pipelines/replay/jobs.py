"""Ranges of a replay one after the other, or several at a time, each in a process of its own.

An entity has one home partition, so partitions are as independent of each other as they are for two
live workers. Decoding, the kernel and Postgres are limited by processors, hence processes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from logging import CRITICAL, getLogger
from multiprocessing import connection, get_context, parent_process
from queue import Empty
from threading import Thread
from typing import Any, Protocol, TypeVar

from pipelines.errors import JobEnded, PipelineError
from pipelines.replay.replay import Done, Report
from pipelines.replay.stop import Stop

POLL_SECONDS = 0.1
"""Seconds between two reads of the jobs' reports."""

_reports: Any = None
_stop: Any = None


class Part(Protocol):
    """A piece of work: a range of a replay, or a partition of a load."""

    @property
    def offsets(self) -> int:
        """How many offsets there are to read."""
        ...


P = TypeVar("P", bound=Part, contravariant=True)
Q = TypeVar("Q", bound=Part)


class Work(Protocol[P]):
    """What is done with each part; it is pickled for the processes of jobs."""

    def run(self, part: P, report: Report, stop: Stop) -> Done:
        """Do a part until it is done or `stop` is set."""
        ...


def run_ranges(work: Work[Q], ranges: Sequence[Q], report: Report, stop: Stop) -> Done:
    """Do ranges one after the other until all are done or `stop` is set."""
    done = [Done() for _ in ranges]
    for number, part in enumerate(ranges):
        if stop.is_set():
            break

        def report_range(range_done: Done, number: int = number) -> None:
            done[number] = range_done
            report(Done.sum(done))

        done[number] = work.run(part, report_range, stop)
    return Done.sum(done)


def run_in_jobs(work: Work[Q], ranges: Sequence[Q], jobs: int, report: Report, stop: Stop) -> Done:
    """Do ranges, `jobs` at a time, until all are done or `stop` is set.

    An error that ends one job ends the others at their next run. Raises `JobEnded` with the first
    error, also when a job was killed.
    """
    context = get_context("spawn")
    reports, ended = context.Queue(), context.Event()
    done = [Done() for _ in ranges]
    failed: list[str] = []
    # the longest first, so that the last job does not begin when the others are done
    order = sorted(range(len(ranges)), key=lambda number: -ranges[number].offsets)
    with ProcessPoolExecutor(jobs, context, _begin, (reports, ended)) as pool:
        with _uninterrupted():
            numbers = {pool.submit(_run, work, n, ranges[n]): n for n in order}
        running = set(numbers)
        try:
            while running:
                if stop.is_set() or failed:
                    ended.set()
                finished, running = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                _read_reports(reports, done, {numbers[future] for future in running})
                for future in finished:
                    outcome = _outcome(future)
                    if isinstance(outcome, Done):
                        done[numbers[future]] = outcome
                    else:
                        failed.append(outcome)
                report(Done.sum(done))
        finally:
            ended.set()
    if failed:
        raise JobEnded(failed[0])
    return Done.sum(done)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that are started here never receive SIGINT, and this one receives it later.

    Ctrl-C reaches the whole process group; the parent decides, and signals it by an event.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _outcome(future: Future[Done | str]) -> Done | str:
    """What a job has done, or why it failed."""
    try:
        return future.result()
    except BrokenProcessPool:
        return (
            "a job was killed (out of memory?); run the same command again, perhaps with fewer "
            "--jobs: it resumes where it stopped"
        )


def _read_reports(reports: Any, done: list[Done], running: set[int]) -> None:
    """Take over the reports of the running jobs; of the others the outcome is known."""
    while True:
        try:
            number, range_done = reports.get_nowait()
        except Empty:
            return
        if number in running:
            done[number] = range_done


# -- in a job's process


def _begin(reports: Any, ended: Any) -> None:
    global _reports, _stop
    _reports, _stop = reports, ended
    getLogger("aiokafka").setLevel(CRITICAL)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this job when its parent is killed, which leaves it no time to set the event."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _run(work: Any, number: int, part: Any) -> Done | str:
    """Do a range; an error is returned as text, as not every error can be pickled."""

    def report(done: Done) -> None:
        _reports.put((number, done))

    if _stop.is_set():
        return Done()
    try:
        done: Done = work.run(part, report, _stop)
        return done
    except PipelineError as error:
        return str(error)
