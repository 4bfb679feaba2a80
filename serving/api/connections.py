"""HTTP/1.1 by uvicorn's protocol on httptools, with the bounds that neither of them has.

- A connection without a request is closed. Uvicorn's own timer runs from an answer to the next
  byte: it waits for ever for the first byte, and for the rest of a request's head.
- The head of a request and the requests that wait for their turn are bounded in memory.
- What is refused is refused in its turn, with a problem document.
- An answer is one write, and one that the client does not read is not kept for ever.
- Every answer has the id of its request, whatever the application does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.api import problems, request_heads, request_ids
from serving.api.direct_exchange import DIRECT, DirectExchange
from serving.api.exchanges import EXCHANGE, Exchange
from serving.api.refusals import Refusal
from serving.api.request_heads import MAX_HEAD_BYTES, MAX_HEADERS
from serving.api.request_ids import REQUEST_ID
from serving.api.unread import Unread
from serving.api.write_gathering import GatheringTransport
from serving.errors import MalformedRequest, ServingError

if TYPE_CHECKING:  # it imports all that answers, which another application does not need
    from serving.api.direct import Direct

PIECE_BYTES = 4_096
"""Bytes that the parser is given at once. Every complete request in them is put into the pipeline,
where it takes about a hundred times the memory of the shortest request's bytes."""


class Connection(HttpToolsProtocol):
    """Closed `timeout_keep_alive` seconds after its start or last answer, without a request.

    Websockets and other protocols are not spoken: a request to upgrade is answered as any other.
    """

    transport: GatheringTransport

    unread: ClassVar[Unread] = Unread()
    """What waits for the clients of all connections of the process."""

    unread_seconds: float = 60.0
    """As `stall_seconds` of `GatheringTransport`."""

    _unfed: bytes = b""
    """What has come and waits until the requests before it have been answered."""

    _unheard: int = 0
    """Bytes that the parser was given since it last began or ended a head, or had some body.
    It may keep all of them, as a header is handed over only when it is complete."""

    _in_body: bool = False
    """Whether the newest request has its head and not yet its end."""

    _refused: bool = False
    """Whether a refusal is the last answer; what still comes is thrown away."""

    _is_last: bool = False
    """Whether the connection is closed once what has come is answered."""

    _idle_until: float = 0.0
    """When the connection is closed if no request comes, by the clock of the loop: so long after
    its start or its last answer. Single bytes do not postpone it."""

    _waits: bool = False
    """Whether a request is answered directly; the parser has not seen it, and may have to."""

    _came: float | None = None
    """When the request came that the parser is given next, if it was looked at before."""

    _direct: Direct | None = None
    """What is answered directly."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._direct = getattr(getattr(self.app, "state", None), DIRECT, None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        gathering = GatheringTransport(transport, self.loop, self.unread, self.unread_seconds)
        super().connection_made(gathering)
        gathering.begin()
        self._begin_idling()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.transport.lost()
        self._unset_keepalive_if_required()

    def resume_writing(self) -> None:
        if self.transport.sent():
            super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        direct = None if self._unfed or self._is_busy else self._direct
        if direct is not None and self._take_direct(direct, data):
            return
        self._unfed += data
        self._feed()
        if direct is not None:
            self._learn(direct, data)

    def _take_direct(self, direct: Direct, data: bytes) -> bool:
        """Have a request answered directly that is known, and all that has come."""
        found = direct.heads.find(data)
        if found is None:
            return False
        (route, known), given, body = found
        request_id = given or request_ids.make()
        exchange = DirectExchange(self, data, body, request_id, keep_alive=not self._is_last)
        if not route.take(known, exchange):
            return False
        self.cycle, self._waits = exchange, True  # type: ignore[assignment]
        return True

    def _learn(self, direct: Direct, data: bytes) -> None:
        """Keep the head of a request, the only one that has come, if others like it are direct.

        There is none after an empty line, which may stand in front of one (RFC 9112, 2.2).
        """
        if self.cycle is None or self._unfed or self._head_began or self._in_body:
            return
        if not self.cycle.keep_alive:
            return
        scope: Any = self.scope
        direct.learn(scope, data, len(self.cycle.body))

    def direct_is_answered(self) -> None:
        self._waits = False
        self.on_response_complete()

    def direct_goes_on(self, exchange: DirectExchange, began: float) -> None:
        self._waits = False
        self.cycle = None  # type: ignore[assignment]
        if self.transport.is_closing():
            return
        self._unfed, self._came = exchange.data + self._unfed, began
        self._feed()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._begin_idling()
        if self._unfed:
            self._feed()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection without a request; look again later at one that is not idle so long.

        So its timer is set once in a while, and not with each request and each answer.
        """
        self.timeout_keep_alive_task = None
        if self.cycle is not None and not self.cycle.response_complete:
            return  # its answer begins the next idle time
        if self.loop.time() >= self._idle_until:
            super().timeout_keep_alive_handler()
        else:
            self._set_timer()

    def _begin_idling(self) -> None:
        self._idle_until = self.loop.time() + self.timeout_keep_alive
        if self.timeout_keep_alive_task is None:
            self._set_timer()

    def _set_timer(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_at(
            self._idle_until, self.timeout_keep_alive_handler
        )

    def finish(self) -> None:
        """Make the answer to the last request that has come the last one, since the server stops.

        Where none has come, that is the next one.
        """
        self._is_last = True
        self._end_with_newest()

    def close_idle(self) -> None:
        """Close the connection unless a request, or the beginning of one, has come."""
        if not (self._unfed or self._is_busy):
            self.transport.close()

    @property
    def _requested(self) -> bool:
        """Whether a request waits for its answer."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_busy(self) -> bool:
        """Whether some of a request has come, or it waits for its answer."""
        return self._requested or self._head_began or self._in_body

    @property
    def _head_began(self) -> bool:
        """Whether some of the head of a request has come, and not all."""
        return self.scope is not (self.cycle and self.cycle.scope)

    def _end_with_newest(self) -> None:
        """Close after the answer to the newest request, unless that is too late to be said."""
        if self._requested and not (self._unfed or self._head_began or self.cycle.response_started):
            self.cycle.keep_alive = False

    def _feed(self) -> None:
        """Give the parser what has come, until a request waits for the answer before it."""
        data, start = self._unfed, 0
        while start < len(data) and not (self.pipeline or self._refused or self._waits):
            start += self._parse(data[start : start + PIECE_BYTES])
        self._unfed = b"" if self._refused else data[start:]
        if self._unfed:
            self.flow.pause_reading()
        if self._is_last:
            self._end_with_newest()

    def _parse(self, piece: bytes) -> int:
        """Give the parser a piece; the number of its bytes that were taken."""
        taken = len(piece)
        self._unheard += taken
        try:
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                # The parser took the body, if there is one, for the other protocol.
                taken = upgrade.args[0]
                method, version = self.parser.get_method(), self.parser.get_http_version()
                head = (method, self.url, version, self.headers)
                self.parser.feed_data(request_heads.without_upgrade(*head))
            if self._unheard > MAX_HEAD_BYTES or len(self.headers or ()) > MAX_HEADERS:
                raise request_heads.too_large()
        except ServingError as refusal:
            self._refuse(refusal)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, ServingError):
                raise
            self._refuse(error.__context__)
        except httptools.HttpParserError as error:
            self._refuse(MalformedRequest(f"{error}: send a request of HTTP/1.1 (RFC 9112)"))
        return taken

    def on_message_begin(self) -> None:
        self._unheard = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # A head that was all in one piece is short, and most are.
        if self._unheard or len(self.headers) > MAX_HEADERS:
            request_heads.check_size(self.url, self.headers)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise MalformedRequest("this server is no proxy: ask it without CONNECT")
            return  # the head comes again, without the upgrade
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if hosts != 1 and self.parser.get_http_version() == "1.1":  # RFC 9112, 3.2
            raise MalformedRequest(f"the request has {hosts} Host headers: send exactly one")
        if not self.url.startswith(b"/"):
            self.url = request_heads.with_path(self.url)
        self._begin_request()
        self._identify(request_ids.id_of(names, self.headers))
        self.headers = []  # of trailers, which must not pass for headers
        self._in_body = True
        self._unheard = 0

    def _begin_request(self) -> None:
        """Begin to answer the request, or let it wait for the answer before it."""
        scope, parser = self.scope, self.parser
        version, target = parser.get_http_version(), httptools.parse_url(self.url)
        path = target.path.decode("ascii")
        scope["http_version"] = version
        scope["method"] = parser.get_method().decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = target.path
        scope["query_string"] = target.query or b""
        begun = self._cycle(version != "1.0" and parser.should_keep_alive())
        begun.began, self._came = self._came, None
        before, self.cycle = self.cycle, begun
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _cycle(self, keep_alive: bool) -> Exchange:
        """The newest request, after which the connection stays or not."""
        return Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )

    def on_body(self, body: bytes) -> None:
        self._unheard = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if self.headers:
            request_heads.check_size(b"", self.headers)
        self.scope["extensions"] = {EXCHANGE: self.cycle}  # type: ignore[dict-item]
        self._in_body = False
        self._unheard = 0
        super().on_message_complete()

    def _refuse(self, error: ServingError) -> None:
        """Answer with a problem when the requests before have their answers, then close."""
        self._refused = True
        busy = self.cycle is not None and not self.cycle.response_complete
        if self._in_body:
            if self.cycle.response_started:
                self._disconnect()
                self.transport.close()
                return
            if self.pipeline:
                self.pipeline.popleft()
            else:
                self._disconnect()
                busy = False
        request_id = self._refused_id()
        self.cycle = self._refused_cycle()
        self._identify(request_id)
        scope: Any = self.scope
        refusal: Any = Refusal(problems.document_of(error, scope), self.transport)
        if busy:
            self.pipeline.appendleft((self.cycle, refusal))
        else:
            self._start_asgi_task(self.cycle, refusal)

    def _identify(self, request_id: bytes) -> None:
        """Give the newest request its id, before its application begins."""
        scope: Any = self.scope
        exchange: Any = self.cycle
        scope[REQUEST_ID], exchange.request_id = request_id.decode(), request_id

    def _refused_id(self) -> bytes:
        """The id of the request that is refused, of which the head may not have come."""
        if self._in_body:
            scope: Any = self.scope
            known: str = scope[REQUEST_ID]
            return known.encode()
        headers = self.headers or ()
        return request_ids.id_of([name for name, _ in headers], headers)

    def _disconnect(self) -> None:
        """Tell the application of the newest request that the rest will not come."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def _refused_cycle(self) -> Exchange:
        """A request in place of the one that was not understood."""
        super().on_message_begin()
        self.scope["method"] = self.parser.get_method().decode()
        self.scope["path"], self.scope["raw_path"], self.scope["query_string"] = "", b"", b""
        self.expect_100_continue = False
        return self._cycle(keep_alive=False)
