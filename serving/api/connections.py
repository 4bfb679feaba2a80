"""Connections without a request are closed.

Uvicorn's own timer runs from an answer to the next byte. Without this class it waits for ever for
the first byte of a connection, and for the rest of a request's head; each such connection counts
towards its limit.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """Closes `timeout_keep_alive` seconds after its start or last answer, without a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        timer = self.timeout_keep_alive_task
        super().data_received(data)
        requested = self.cycle is not None and not self.cycle.response_complete
        # Uvicorn stops the timer at any byte, but single bytes must not postpone it.
        if timer is not None and not requested:
            self.timeout_keep_alive_task = self.loop.call_at(
                timer.when(), self.timeout_keep_alive_handler
            )
