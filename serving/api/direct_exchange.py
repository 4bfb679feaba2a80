"""A request that is answered directly, as its connection has it: in place of uvicorn's cycle."""

from __future__ import annotations

from typing import Any, Protocol

from serving.api.exchanges import whole_answer

DIRECT = "direct"
"""The attribute of an application's state under which its connections find its `Direct`."""


class _NobodyWaits:
    """In place of the event by which uvicorn tells an application that the client is gone."""

    def set(self) -> None:
        """Nothing: who answers looks for itself."""


class Home(Protocol):
    """The connection of the request."""

    scope: Any
    transport: Any
    flow: Any
    server_state: Any

    def direct_is_answered(self) -> None:
        """The answer is written."""
        ...

    def direct_goes_on(self, exchange: DirectExchange, began: float) -> None:
        """The request is answered the ordinary way."""
        ...


class DirectExchange:
    """The request. It is that of the connection until it is answered, or goes the ordinary way."""

    __slots__ = (
        *("_home", "body", "data", "disconnected", "keep_alive", "request_id"),
        *("response_complete", "response_started", "scope"),
    )
    message_event = _NobodyWaits()

    def __init__(
        self, home: Home, data: bytes, body: bytes, request_id: bytes, keep_alive: bool
    ) -> None:
        """`data` is the whole request as it came."""
        self._home = home
        self.data = data
        self.body = body
        self.request_id = request_id
        self.keep_alive = keep_alive
        self.scope = home.scope  # no head has begun since
        self.disconnected = self.response_started = self.response_complete = False

    def may_answer(self) -> bool:
        return not self._home.flow.write_paused

    def answer(self, content: bytes, kind: bytes) -> None:
        self.response_started = self.response_complete = True
        self.data = self.body = b""  # the connection has this until its next request comes
        home = self._home
        if not self.disconnected:
            head = b"content-length: %d\r\ncontent-type: %b\r\n" % (len(content), kind)
            headers = home.server_state.default_headers
            home.transport.write_whole(
                whole_answer(headers, self.request_id, head, content, self.keep_alive)
            )
            if not self.keep_alive:
                home.transport.close()
        home.direct_is_answered()

    def go_on(self, began: float) -> None:
        self._home.direct_goes_on(self, began)
