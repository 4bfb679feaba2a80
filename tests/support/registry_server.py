"""A schema registry over HTTP: what the REST protocol says of schemas, from a dictionary.

It can be away (its port refuses), silent (it takes a request and does not answer), or answer with
an error of its own.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]
UNKNOWN: Answer = (404, {"error_code": 40403, "message": "Schema not found"})


class RegistryServer:
    """A registry on 127.0.0.1. `schemas` are by id, `versions` by subject and version.

    `failure`, while it is set, is the answer to every request. `asked` has the paths and the
    `Authorization` of all requests. With `tls` it is reached over TLS.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.schemas: dict[int, dict[str, Any]] = {}
        self.versions: dict[tuple[str, int], int] = {}
        self.failure: Answer | Callable[[], Answer] | None = None
        self.asked: list[tuple[str, str | None]] = []
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}"

    def register(self, schema: Any, kind: str = "AVRO", references: Any = ()) -> int:
        number = len(self.schemas) + 1
        text = schema if isinstance(schema, str) else json.dumps(schema)
        self.schemas[number] = {"schema": text, "guid": f"00000000-0000-0000-0000-{number:012}"}
        if kind != "AVRO":
            self.schemas[number]["schemaType"] = kind
        if references:
            self.schemas[number]["references"] = list(references)
        self.versions[f"subject-{number}", 1] = number
        return number

    def start(self) -> None:
        """Begin to answer, on the port that it had before."""

        class Handler(BaseHTTPRequestHandler):
            registry = self

            def do_GET(self) -> None:
                self.registry.asked.append((self.path, self.headers["Authorization"]))
                failure = self.registry.failure
                status, body = (
                    self.registry.answer(self.path)
                    if failure is None
                    else failure()
                    if callable(failure)
                    else failure
                )
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                with suppress(OSError):  # a client that no longer waits
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()

    def stop(self) -> None:
        """Go away: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, path: str) -> Answer:
        """What the registry has at a path."""
        path = path.partition("?")[0]
        if found := re.fullmatch(r"/schemas/ids/(\d+)", path):
            return self._schema(int(found[1]))
        if found := re.fullmatch(r"/schemas/guids/([0-9a-f-]+)", path):
            numbers = [n for n, schema in self.schemas.items() if schema["guid"] == found[1]]
            return self._schema(numbers[0]) if numbers else UNKNOWN
        if found := re.fullmatch(r"/subjects/([\w-]+)/versions/(\d+)", path):
            version = int(found[2])
            number = self.versions.get((found[1], version))
            if number is None:
                return 404, {"error_code": 40402, "message": f"Version {version} not found."}
            status, body = self._schema(number)
            return status, {**body, "subject": found[1], "id": number, "version": version}
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _schema(self, number: int) -> Answer:
        schema = self.schemas.get(number)
        return UNKNOWN if schema is None else (200, schema)
