"""What each class of faults does."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock

import psutil
import psycopg2

from tests.chaos.processes import Processes
from tests.chaos.schedule import KINDS, WARM, Fault

NODE_PAUSED = "node of the Redis Cluster paused"
"""What becomes of each fault of the warm Redis where that is a cluster: its nodes keep nothing on
disk, and are in no deployment without replicas, which would take over."""

Do = Callable[[Fault], bool]
"""Does a fault; False where there was nothing to do it to."""


@dataclass
class Faults:
    """Does the faults of a schedule at their moments; `done` counts those that happened.

    `nodes` are the names of the nodes where the warm Redis is a cluster.
    """

    processes: Processes
    postgres: str
    say: Callable[[str], None]
    nodes: Sequence[str] = ()
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._how: dict[str, Do] = {
            "Postgres backend killed": self._kill_backend,
            "Postgres connections ended": self._end_connections,
            NODE_PAUSED: self._pause,
        }
        for kind in KINDS:
            for word, how in (
                ("killed", self._kill),
                ("terminated", self._terminate),
                ("restarted", self._terminate),
                ("paused", self._pause),
            ):
                if word in kind.name:
                    self._how.setdefault(kind.name, how)
        assert self._how.keys() == {NODE_PAUSED, *(kind.name for kind in KINDS)}

    def run(self, faults: Sequence[Fault]) -> None:
        """Do them all; each in a thread, for they last. Returns when everybody is back."""
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            for fault in faults:
                time.sleep(max(0.0, began + fault.at - time.monotonic()))
                pool.submit(self._do, fault, began)

    def _do(self, fault: Fault, began: float) -> None:
        if self.nodes and fault.target == WARM:
            node = self.nodes[int(fault.at * 1_000) % len(self.nodes)]
            fault = replace(fault, kind=NODE_PAUSED, target=node)
        self.say(f"{time.monotonic() - began:8.2f} s  {fault}")
        try:
            happened = self._how[fault.kind](fault)
        except Exception as error:
            self.failures.append(f"{fault}: {error!r}")
            raise
        if happened:
            with self._lock:
                self.done[fault.kind] += 1

    def _kill(self, fault: Fault) -> bool:
        return self.processes.kill(fault.target, fault.down)

    def _terminate(self, fault: Fault) -> bool:
        return self.processes.terminate(fault.target, fault.down)

    def _pause(self, fault: Fault) -> bool:
        return self.processes.pause(fault.target, fault.down)

    def _kill_backend(self, fault: Fault) -> bool:
        """kill -9 of the backend of a worker, on which the server ends all others and recovers."""
        pid = self.processes.pid(fault.target)
        if pid is None:
            return False
        try:
            backends = [
                child.pid
                for child in psutil.Process(pid).children()
                if "127.0.0.1" in " ".join(child.cmdline())
            ]
            if backends:
                os.kill(max(backends), signal.SIGKILL)
        except (psutil.NoSuchProcess, ProcessLookupError):
            return False  # it ended by itself meanwhile
        return bool(backends)

    def _end_connections(self, fault: Fault) -> bool:
        """The server ends every connection of this database."""
        try:
            connection = psycopg2.connect(self.postgres, connect_timeout=5)
        except psycopg2.OperationalError:
            return False  # it is just recovering: nobody has a connection
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                return cursor.rowcount > 0
        except psycopg2.OperationalError:
            return False
        finally:
            connection.close()
