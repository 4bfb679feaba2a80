"""The processes of load generators: started, watched, and what they have seen added up."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import reduce
from typing import Any

from tickwell.bench.load import Plan
from tickwell.bench.tally import Seen
from tickwell.errors import TickwellError

START_SECONDS = 0.2
"""Seconds from when all are connected until they begin, at the same moment."""

END_SECONDS = 5.0

Progress = Callable[[int], None]
"""Is told how many requests have been answered so far, in all."""


def default_processes() -> int:
    """Half of the processors: the rest is the server's, where both are on one machine."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


def shares(plan: Plan, processes: int) -> list[Plan]:
    """The plan of each process: a share of the connections and of the rate, draws of its own."""
    processes = min(processes, plan.connections)
    return [
        plan._replace(
            connections=plan.connections * (n + 1) // processes - plan.connections * n // processes,
            rate=None if plan.rate is None else plan.rate / processes,
            seed=plan.seed + n,
        )
        for n in range(processes)
    ]


def generate(plans: Sequence[Plan], progress: Progress) -> Seen:
    """What is seen by a process for each plan, all at the same time.

    `progress` is called by several threads. Raises `TickwellError` where a process cannot connect
    or does not come to its end; then all are ended.
    """
    with ExitStack() as stack:
        generators = [stack.enter_context(_Generator(plan)) for plan in plans]
        for generator in generators:
            generator.take("ready")
        begin = time.monotonic() + START_SECONDS
        for generator in generators:
            generator.send(begin)
        finished = [0] * len(generators)

        def watch(number: int) -> Seen:
            def told(count: int) -> None:
                finished[number] = count
                progress(sum(finished))

            seen = generators[number].take("seen", told)
            assert isinstance(seen, Seen)
            return seen

        threads = stack.enter_context(ThreadPoolExecutor(len(generators)))
        for generator in generators:
            stack.callback(generator.end)
        return reduce(Seen.added_to, threads.map(watch, range(len(generators))))


class _Generator:
    """A process that carries out a plan; in a group of its own, so that Ctrl-C is ours to take."""

    def __init__(self, plan: Plan) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tickwell.bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.send(plan)

    def __enter__(self) -> _Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def end(self) -> None:
        """End it, whatever it does; a thread that reads from it learns so."""
        self._process.terminate()

    def send(self, what: object) -> None:
        """Write something to it; what cannot be written is told when something is read."""
        assert self._process.stdin is not None
        try:
            pickle.dump(what, self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass

    def take(self, wanted: str, progress: Progress = lambda finished: None) -> Any:
        """What it says of a kind. Raises `TickwellError`."""
        assert self._process.stdout is not None
        while True:
            try:
                kind, what = pickle.load(self._process.stdout)
            except (EOFError, pickle.UnpicklingError):
                raise TickwellError(
                    "a process that was to ask the server ended before it was done, as for want of "
                    "memory: ask for fewer entities (--limit) or with fewer --connections"
                ) from None
            if kind == "failed":
                raise TickwellError(
                    f"no connection to the server ({what}): does it run, and does it take as many "
                    "connections? --connections asks for fewer, and `ulimit -n` bounds them"
                )
            if kind == wanted:
                return what
            progress(what)
