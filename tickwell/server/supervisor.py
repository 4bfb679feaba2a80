"""Several processes of one server on one port: started, replaced, stopped.

This process accepts connections and hands each to the process that has the fewest. So they are
shared evenly, which the system's own ways do not do, and no process ends with connections that
nobody has accepted (docs/design.md, "Several processes"). It reads no byte of them.

- SIGHUP replaces the processes one after another: a new one is ready before the old one is told to
  end. One that does not become ready is stopped, and the old one stays.
- A process that ends by itself is started again, with growing pauses. One that ends before any has
  served, or again and again soon after its start, ends the server.
- SIGTERM and SIGINT stop the server as `serving.api.server` describes; a second SIGINT ends it at
  once. When this process is killed, the others read that from their sockets, and end.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field

from serving.metric_sums import Family, Sample, bury, count_in_past
from serving.shared_pages import SharedPages
from tickwell.errors import TickwellError
from tickwell.restarts import Restarts
from tickwell.server.child import Child
from tickwell.server.listening import BACKLOG, cannot_listen, listeners
from tickwell.server.sharing import Sharing
from tickwell.settings import Settings

logger = logging.getLogger(__name__)

START_SECONDS = 60.0
"""Seconds in which a process must have started, and be ready where it replaces another one."""

HUNG_SECONDS = 3.0
"""Seconds without a word in its page after which a process hangs: others get the connections."""

KILL_SECONDS = 3.0
"""Seconds beside the patience of a stop after which a process is killed."""

QUICK_ENDS = 5
"""How often in a row a process may end soon after its start."""


@dataclass(slots=True)
class _Seat:
    """The place of one process, of which there are as many as were asked for."""

    child: Child
    restarts: Restarts = field(default_factory=Restarts)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while another process is started."""


class Supervisor:
    """What `tickwell serve` does with more than one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # As many may serve, be about to end, and have been started again in the meantime.
        self._pages = SharedPages.create(1 + 3 * settings.serve_workers + 1)
        self._count("replaced", 0.0)  # a rate is seen only of a series that was there before
        self._count("crashed", 0.0)
        self._free = set(range(1, self._pages.pages))
        self._children: list[Child] = []
        self._seats: list[_Seat] = []
        self._started = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._failed: TickwellError | None = None

    def run(self) -> None:
        """Serve until a signal.

        Raises `TickwellError` where the server cannot listen, or its processes do not run.
        """
        sockets = listeners(self._settings.host, self._settings.port)
        try:
            asyncio.run(self._run(sockets))
        finally:
            for listener in sockets:
                listener.close()
            self._pages.close()
        if self._failed is not None:
            raise self._failed

    async def _run(self, sockets: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        self._stop, self._wanted_anew, self._at_once = (asyncio.Event() for _ in range(3))
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGHUP, self._wanted_anew.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        sharing = Sharing(sockets, self._children)
        try:
            await self._start_all()
            if not self._stop.is_set():
                self._listen(sockets)
                sharing.begin()
                self._spawn(self._replace_when_told())
                self._spawn(self._watch())
            await self._stop.wait()
            await self._shut_down(sharing)
        finally:
            for child in self._children:
                child.kill()

    # -- starting

    async def _start_all(self) -> None:
        """Start the first process, and the others once it serves: then the settings are right."""
        child = self._start()
        self._seats.append(_Seat(child))
        await _first_of(self._stop, child.started, child.ended)
        if self._stop.is_set():
            return
        if child.ended.is_set():
            self._fail(f"the server ended with {child.exit_code()} before it served")
            return
        self._seats += [_Seat(self._start()) for _ in range(1, self._settings.serve_workers)]

    def _listen(self, sockets: list[socket.socket]) -> None:
        for listener in sockets:
            try:
                listener.listen(BACKLOG)
            except OSError as error:
                self._failed = cannot_listen(self._settings.host, self._settings.port, error)
                self._stop.set()

    def _start(self) -> Child:
        """Start a process. Raises `OSError` where the system has no room for one."""
        if not self._free:
            raise OSError(errno.EAGAIN, "too many processes are about to end")
        self._started += 1
        page = min(self._free)
        child = Child(self._settings, self._pages, page, self._started, self._wants_to_end)
        self._free.remove(page)
        self._children.append(child)
        if self._stop.is_set():  # it takes the place of one that was told so
            child.not_ready()
        return child

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a mistake of the supervisor", exc_info=task.exception())
            self._fail("the supervisor of the server failed")

    # -- keeping them running

    def _reap(self) -> None:
        """See which processes have ended."""
        for child in list(self._children):
            if child.exit_code() is None:
                continue
            self._children.remove(child)
            child.close()
            bury(self._pages, child.page, child.number)
            self._free.add(child.page)
            if not child.told_to_end and not self._stopping:
                self._crashed(child)

    def _crashed(self, child: Child) -> None:
        for seat in self._seats:
            if seat.child is child:
                self._count("crashed")
                ran = time.monotonic() - child.began if child.started.is_set() else 0.0
                pause = seat.restarts.after(ran)
                logger.error("server process %d ended with %s", child.pid, child.exit_code())
                if seat.restarts.in_a_row >= QUICK_ENDS:
                    self._fail(
                        f"a server process ended {QUICK_ENDS} times in a row soon after its start, "
                        f"at last with {child.exit_code()}"
                    )
                    return
                self._spawn(self._refill(seat, pause))

    async def _refill(self, seat: _Seat, pause: float) -> None:
        """Start a process in place of one that has ended."""
        async with seat.lock:
            while seat.child.ended.is_set():
                await asyncio.sleep(pause)
                try:
                    seat.child = self._start()
                except OSError as error:
                    logger.error("no server process can be started: %s", error)
                    pause = seat.restarts.after(0.0)
                else:
                    logger.error("server process %d is started instead", seat.child.pid)

    async def _replace_when_told(self) -> None:
        while True:
            await self._wanted_anew.wait()
            self._wanted_anew.clear()
            for seat in self._seats:
                await self._replaced(seat)
            for child in list(self._children):  # there are never more than twice as many
                if child.told_to_end:
                    await child.ended.wait()

    def _wants_to_end(self, child: Child) -> None:
        """A process got a signal: it ends when another one is ready."""
        for seat in self._seats:
            if seat.child is child and not self._stopping:
                self._spawn(self._replaced(seat, child))

    async def _replaced(self, seat: _Seat, wanted: Child | None = None) -> None:
        """Replace the process of a seat; with `wanted` if it is still that."""
        async with seat.lock:
            old = seat.child
            if wanted not in (None, old):
                return
            try:
                new = self._start()
            except OSError as error:
                logger.error("no server process can be started, %d stays: %s", old.pid, error)
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(START_SECONDS):
                    await _first_of(new.ready, new.ended)
            if not new.ready.is_set() or new.ended.is_set():
                why = f"ended with {new.exit_code()}" if new.ended.is_set() else "is not ready"
                logger.error("server process %d %s, %d stays", new.pid, why, old.pid)
                new.end()
                return
            seat.child = new
            self._count("replaced")
            old.end(replaced=True)

    async def _watch(self) -> None:
        """Note which processes hang, by their pages, and kill those that do not start."""
        seen: dict[Child, int] = {}
        while True:
            await asyncio.sleep(HUNG_SECONDS)
            now = time.monotonic()
            before = seen
            seen = {child: self._pages.written(child.page) for child in self._children}
            for child, written in seen.items():
                started = child.started.is_set()
                child.hangs = started and before.get(child) == written
                if not started and now - child.began > START_SECONDS:
                    logger.error("server process %d does not start", child.pid)
                    child.kill()

    def _count(self, how: str, many: float = 1.0) -> None:
        """Count a process that has ended, or is to."""
        sample = Sample("tickwell_server_processes_ended_total", {"how": how}, many)
        text = "Processes of the server that another one took the place of"
        family = Family("tickwell_server_processes_ended", text, "counter", [sample])
        count_in_past(self._pages, family)

    # -- stopping

    def _asked_to_stop(self, number: signal.Signals) -> None:
        if self._stop.is_set() and number == signal.SIGINT:
            self._at_once.set()
        self._stop.set()

    def _fail(self, what: str) -> None:
        """End the server."""
        self._failed = self._failed or TickwellError(f"{what}: what it wrote stands above")
        self._stop.set()

    async def _shut_down(self, sharing: Sharing) -> None:
        if self._failed is None and self._settings.stop_pause_seconds:
            for child in self._children:
                child.not_ready()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.stop_pause_seconds):
                    await self._at_once.wait()
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        sharing.end()
        for child in self._children:
            child.end()
        ended = [child.ended for child in self._children]
        seconds = self._settings.drain_seconds + KILL_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for each in ended:
                    await _first_of(self._at_once, each)


async def _first_of(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
