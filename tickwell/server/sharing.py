"""Connections that come to a server, each handed to the process that has the fewest."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from serving.accepting import accepted_by

logger = logging.getLogger(__name__)

ACCEPTS = 64
"""Connections that are accepted in one turn of the event loop."""

AGAIN_SECONDS = 0.05
"""Pause after which connections are accepted again, where no process takes one, in seconds."""

NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Taker(Protocol):
    """What connections are handed to: a `Child`."""

    open: int
    """How many it has."""

    hangs: bool

    @property
    def serves(self) -> bool: ...

    def hand(self, accepted: socket.socket) -> bool:
        """Whether it takes a connection, of which the caller closes its own descriptor."""
        ...


class Sharing:
    """Accepts connections and hands them to those of `children` that serve.

    While none does, the system keeps what waits at the listeners.
    """

    def __init__(self, listeners: Sequence[socket.socket], children: Iterable[Taker]) -> None:
        self._listeners = listeners
        self._children = children
        self._held: list[socket.socket] = []
        """Connections that were accepted, and that no process could take yet."""
        self._ended = False

    def begin(self) -> None:
        for listener in self._listeners:
            self._watch(listener)

    def end(self) -> None:
        """Hand over what waits, then close the listeners."""
        self._ended = True
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            self._accept(listener, None)
            listener.close()
        for held in self._held:
            held.close()

    def _watch(self, listener: socket.socket) -> None:
        if not self._ended:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, ACCEPTS)

    def _accept(self, listener: socket.socket, most: int | None) -> None:
        """Accept no more than `most`; where no process takes any, pause."""
        held, self._held = self._held, []
        for accepted in held:
            self._hand(accepted)
        try:
            if not self._held and any(child.serves for child in self._children):
                for accepted in accepted_by(listener, most):
                    self._hand(accepted)
                    if self._held:
                        break
                else:
                    return
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            logger.error("no connection can be accepted: %s", error.strerror)
        if not self._ended:
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(AGAIN_SECONDS, self._watch, listener)

    def _hand(self, accepted: socket.socket) -> None:
        if any(child.hand(accepted) for child in self._by_load()):
            accepted.close()
        else:
            self._held.append(accepted)

    def _by_load(self) -> Iterator[Taker]:
        """The processes that serve: the one with the fewest first, those that hang last."""
        serving = [child for child in self._children if child.serves]
        return iter(sorted(serving, key=lambda child: (child.hangs, child.open)))
