"""Connections that ask nothing are closed.

Uvicorn's own timer runs from an answer to the next byte. It waits for ever for the first byte of a
connection, and for the rest of a request's head; each such connection counts in its limit.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """Closes `timeout_keep_alive` seconds after its start or last answer, unless it asks."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        timer = self.timeout_keep_alive_task
        super().data_received(data)
        asking = self.cycle is not None and not self.cycle.response_complete
        # Uvicorn stops the timer at any byte; one byte at a time must not put it off
        if timer is not None and not asking:
            self.timeout_keep_alive_task = self.loop.call_at(
                timer.when(), self.timeout_keep_alive_handler
            )
