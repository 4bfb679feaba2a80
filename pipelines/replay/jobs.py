"""Ranges of a replay one after the other, or several at a time, each in a process of its own.

An entity has one home partition, so that partitions are as independent of each other as they are
for two live workers. Decoding, the kernel and Postgres are bound by processors, hence processes.
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
from typing import Any

from pipelines.errors import JobEnded, PipelineError
from pipelines.replay.range_reader import Stop
from pipelines.replay.ranges import Range
from pipelines.replay.replay import Done, Replay, Tell

LOOK_SECONDS = 0.1
"""How often it is looked what the jobs have told."""

_told: Any = None
_stop: Any = None


def run_ranges(replay: Replay, ranges: Sequence[Range], tell: Tell, stop: Stop) -> Done:
    """Replay ranges one after the other until all are done or `stop` is set."""
    done = [Done() for _ in ranges]
    for place, part in enumerate(ranges):
        if stop.is_set():
            break

        def told(part_done: Done, place: int = place) -> None:
            done[place] = part_done
            tell(Done.sum(done))

        done[place] = replay.run(part, told, stop)
    return Done.sum(done)


def run_in_jobs(replay: Replay, ranges: Sequence[Range], jobs: int, tell: Tell, stop: Stop) -> Done:
    """Replay ranges, `jobs` at a time, until all are done or `stop` is set.

    Whatever ends one job ends the others at their next run. Raises the first one's error, and
    `JobEnded` when a job was killed.
    """
    context = get_context("spawn")
    told, ended = context.Queue(), context.Event()
    done = [Done() for _ in ranges]
    failed: list[str] = []
    # the longest first, so that the last job does not begin when the others are done
    order = sorted(range(len(ranges)), key=lambda place: -ranges[place].offsets)
    with ProcessPoolExecutor(jobs, context, _begin, (told, ended)) as pool:
        with _uninterrupted():
            places = {pool.submit(_run, replay, place, ranges[place]): place for place in order}
        running = set(places)
        try:
            while running:
                if stop.is_set() or failed:
                    ended.set()
                finished, running = wait(running, LOOK_SECONDS, FIRST_COMPLETED)
                _hear(told, done, {places[future] for future in running})
                for future in finished:
                    outcome = _outcome(future)
                    if isinstance(outcome, Done):
                        done[places[future]] = outcome
                    else:
                        failed.append(outcome)
                tell(Done.sum(done))
        finally:
            ended.set()
    if failed:
        raise JobEnded(failed[0])
    return Done.sum(done)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that are started here never get SIGINT, and this one gets it later.

    Ctrl-C reaches the whole group of processes; the parent decides, and tells it by an event.
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
            "--jobs: it goes on where it was"
        )


def _hear(told: Any, done: list[Done], running: set[int]) -> None:
    """Take over what the running jobs have told; of the others the outcome is known."""
    while True:
        try:
            place, part_done = told.get_nowait()
        except Empty:
            return
        if place in running:
            done[place] = part_done


# -- in a job's process


def _begin(told: Any, ended: Any) -> None:
    global _told, _stop
    _told, _stop = told, ended
    getLogger("aiokafka").setLevel(CRITICAL)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed says nothing; its jobs must not go on by themselves."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _run(replay: Replay, place: int, part: Range) -> Done | str:
    """Replay a range; what goes wrong comes back in words, as not every error can be pickled."""

    def tell(done: Done) -> None:
        _told.put((place, done))

    if _stop.is_set():
        return Done()
    try:
        return replay.run(part, tell, _stop)
    except PipelineError as error:
        return str(error)
