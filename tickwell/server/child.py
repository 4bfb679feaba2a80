"""A process of the server as its supervisor sees it: started, given connections, told to end."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from serving.shared_pages import SharedPages
from tickwell.server.orders import (
    ASKED_TO_END,
    CLOSED,
    CONNECTION,
    NOT_READY,
    READY,
    REPLACED,
    STARTED,
    STOP,
    Duty,
)
from tickwell.settings import Settings

READ_BYTES = 4_096
PROGRAM = ("-m", "tickwell.server.process")


class Child:
    """A process that was just started. `asked_to_end` is called when it got a signal."""

    def __init__(
        self,
        settings: Settings,
        pages: SharedPages,
        page: int,
        number: int,
        asked_to_end: Callable[[Child], None],
    ) -> None:
        self.page, self.number = page, number
        self.started, self.ready, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.began = time.monotonic()
        self.open = 0
        """Connections that were handed over and, as far as it has told, are not closed."""
        self.told_to_end = False
        self.gone = False
        """Whether it has ended, or closed its socket as it ends."""
        self.hangs = False
        """Whether it has written nothing into its page for a while."""
        self._asked_to_end = asked_to_end
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        with theirs:
            files = (theirs.fileno(), pages.file)
            self._popen = subprocess.Popen(
                [sys.executable, *PROGRAM],
                stdin=subprocess.PIPE,
                pass_fds=files,
                start_new_session=True,  # Ctrl-C is for the supervisor
            )
            duty = Duty(settings, number, *files, pages.pages, page)
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError), self._popen.stdin as told:  # where it has ended already
            told.write(msgspec.json.encode(duty))
        asyncio.get_running_loop().add_reader(self._channel, self._read)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def serves(self) -> bool:
        """Whether it can be given connections."""
        return self.started.is_set() and not self.told_to_end and not self.gone

    def hand(self, accepted: socket.socket) -> bool:
        """Hand a connection over; False where it takes none now, and the caller keeps it."""
        try:
            socket.send_fds(self._channel, [CONNECTION], [accepted.fileno()])
        except OSError:
            return False
        self.open += 1
        return True

    def not_ready(self) -> None:
        """Let it say that it is not ready, and go on."""
        self._tell(NOT_READY)

    def end(self, replaced: bool = False) -> None:
        """Let it answer what has come, and end. With `replaced` others serve meanwhile."""
        self.told_to_end = True
        self._tell(REPLACED if replaced else STOP)

    def kill(self) -> None:
        self._popen.kill()

    def exit_code(self) -> int | None:
        """Its exit code, None while it runs; below 0 the signal that it was killed by."""
        return self._popen.poll()

    def close(self) -> None:
        """Note that it has ended."""
        self.gone = True
        self._stop_reading()
        self._channel.close()
        self.ended.set()

    def _tell(self, order: bytes) -> None:
        try:
            self._channel.send(order)
        except OSError:  # it hangs, with its socket full, or is about to be gone
            self._stop_reading()
            self._channel.close()  # which it reads as a supervisor that is gone, and ends

    def _stop_reading(self) -> None:
        if self._channel.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._channel)

    def _read(self) -> None:
        try:
            told = self._channel.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            told = b""
        if not told:
            self.gone = True
            self._stop_reading()
        self.open -= told.count(CLOSED)
        if STARTED in told:
            self.started.set()
        if READY in told:
            self.ready.set()
        if ASKED_TO_END in told:
            self._asked_to_end(self)
