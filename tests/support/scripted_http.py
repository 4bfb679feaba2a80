"""A small HTTP server on a real socket, which does to each request what a test has written down."""

from __future__ import annotations

import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, NamedTuple

import msgspec

NO_LINGER = struct.pack("ii", 1, 0)
"""With it a socket that is closed sends a reset."""

VALUE = {"value": 1.5, "status": "ok", "version": "1.0.0", "event_time": None, "age_seconds": None}
ANSWER = {"entity": {"symbol": "A"}, "features": {"f": VALUE}}


class Request(NamedTuple):
    """What a client has sent."""

    method: str
    path: str
    headers: dict[str, str]
    """By names in lower case."""
    body: bytes


class Script:
    """The behaviours of a server, one for each request; the last one stays."""

    def __init__(self, *behaviours: Callable[[_Handler], None]) -> None:
        self.behaviours = deque(behaviours)
        self.requests: list[Request] = []
        self.connections = 0
        self.ended = Event()
        """Set when the server ends: what waits for it hangs no longer."""

    def next(self) -> Callable[[_Handler], None]:
        return self.behaviours.popleft() if len(self.behaviours) > 1 else self.behaviours[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    script: Script

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.script.connections += 1

    def do_POST(self) -> None:
        script = self.server.script
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.sent = Request(self.command, self.path, headers, body)
        script.requests.append(self.sent)
        script.next()(self)

    do_GET = do_CONNECT = do_POST  # noqa: N815 - http.server's names

    def log_message(self, *_: Any) -> None: ...


def answers(
    content: object = ANSWER, status: int = 200, **headers: str
) -> Callable[[_Handler], None]:
    """Answer with JSON, or with bytes as they are; `_` in names of headers stands for `-`."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)

    def behave(handler: _Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def problem(
    status: int,
    title: str,
    detail: str = "why",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Callable[[_Handler], None]:
    """Answer with a problem document."""
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    kind = {"Content_Type": "application/problem+json"}
    return answers(document, status, **kind, **(headers or {}))


def resets(handler: _Handler) -> None:
    """Break the connection without an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    handler.connection.close()
    handler.close_connection = True


def hangs(handler: _Handler) -> None:
    """Answer nothing for as long as the server lives."""
    handler.server.script.ended.wait()
    handler.close_connection = True


def drips(handler: _Handler) -> None:
    """Send a body byte by byte that never ends, each well within any timeout for a read."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while not handler.server.script.ended.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def drips_the_head(handler: _Handler) -> None:
    """Send a line of a head byte by byte that never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not handler.server.script.ended.wait(0.02):
        handler.wfile.write(b"x")
        handler.wfile.flush()


def answers_and_closes(handler: _Handler) -> None:
    """Answer, and close the connection without having said so."""
    answers()(handler)
    handler.close_connection = True


@contextmanager
def full() -> Iterator[int]:
    """The port of a listener that answers nobody who connects, as too many wait to be accepted."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        with suppress(TimeoutError):
            while True:
                opened.enter_context(socket.create_connection(listener.getsockname(), timeout=0.2))
        yield listener.getsockname()[1]


@contextmanager
def listening(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The URL of a server that follows a script."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.script = script
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        script.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
