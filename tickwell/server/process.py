"""One of several processes of a server, `python -m tickwell.server.process`.

It does not listen. The supervisor accepts connections and hands them over, so that it can share
them out evenly, and none is lost when a process is replaced.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType

import msgspec

from tickwell import json_logs
from tickwell.late_imports import late_imports
from tickwell.server.orders import (
    ASKED_TO_END,
    CLOSED,
    CONNECTION,
    NOT_READY,
    READY,
    REPLACED,
    STARTED,
    Duty,
)
from tickwell.settings import Settings

with late_imports():
    from serving.api.request_log import BoundedLog
    from serving.api.routes import Server
    from serving.api.server import DrainingServer, Patience
    from serving.errors import NotReady
    from serving.metric_sums import Siblings
    from serving.process import ThisProcess
    from serving.shared_pages import SharedPages
    from tickwell.server.serving import application, config_of, run

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Orders that are read in one turn of the event loop; requests have their turn in between."""

NO_ROOM = (
    "a client's connection is lost, as this process has as many files open as it may: raise the "
    "limit of open files, or let more processes serve"
)

ORPHAN_SECONDS = 10.0
"""Seconds beside the patience of a stop, after which a process without a supervisor is killed."""


class HandedServer(DrainingServer):
    """A server of the connections that a supervisor hands over; it ends when it is told to."""

    def __init__(self, settings: Settings, siblings: Siblings, channel: socket.socket) -> None:
        process = ThisProcess(siblings)
        app = application(settings, process)
        self._served: Server = app.state.server
        publish = self._served.metrics.publish
        super().__init__(config_of(settings, app), Patience(), process, publish)
        self._settings = settings
        self._channel = channel
        self._ready = False
        self._taken = 0
        self._told_closed = 0
        self._log = BoundedLog(logger)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._orders)
        self._tell(STARTED)

    async def on_tick(self, counter: int) -> bool:
        if not self._ready:
            self._ready = self._is_ready()
        closed = self._taken - len(self.server_state.connections) - self.arriving()
        if closed > self._told_closed:
            self._told_closed += self._tell(CLOSED * (closed - self._told_closed))
        return await super().on_tick(counter)

    def take(self, accepted: socket.socket) -> None:
        self._taken += 1
        super().take(accepted)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Let the supervisor start another process first."""
        self._tell(ASKED_TO_END)

    def _is_ready(self) -> bool:
        try:
            self._served.check_ready()
        except NotReady:
            return False
        self._tell(READY)
        return True

    def _tell(self, what: bytes) -> int:
        """The number of bytes that were told."""
        try:
            return self._channel.send(what)
        except OSError:  # the supervisor hangs, or is gone, which is read from the channel
            return 0

    def _orders(self) -> None:
        """Read what has come from the supervisor."""
        for _ in range(AT_ONCE):
            try:
                order, files, _, _ = socket.recv_fds(self._channel, 1, 1)
            except BlockingIOError:
                return
            except OSError:
                order, files = b"", []
            for file in files:
                self.take(socket.socket(fileno=file))
            if order == CONNECTION and not files:  # the system has closed it
                self._taken += 1
                self._log.warning(NO_ROOM, {})
            if order == NOT_READY:
                self.process.stopping = True
            elif order != CONNECTION:
                self._end(order)
            if not order:
                return

    def _end(self, order: bytes) -> None:
        """End as one that is replaced, at a stop, or because the supervisor was killed."""
        drain, idle = self._settings.drain_seconds, Patience().idle
        if order == REPLACED:  # then a connection ends no sooner than it would have anyway
            idle = self._settings.keep_alive_seconds
            drain += idle
        self.patience = Patience(0.0, drain, idle)
        if not order:
            asyncio.get_running_loop().remove_reader(self._channel)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, drain + ORPHAN_SECONDS)
        self.should_exit = True


def main() -> None:
    told = sys.stdin.buffer.read()
    if not told:  # the supervisor was killed while it started this
        return
    json_logs.configure()
    duty = msgspec.json.decode(told, type=Duty)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which is for the supervisor
    pages = SharedPages(duty.shared, duty.pages)
    siblings = Siblings(pages, duty.page, duty.process)
    run(HandedServer(duty.settings, siblings, socket.socket(fileno=duty.channel)), [])


if __name__ == "__main__":
    main()
