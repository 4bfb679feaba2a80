"""A server of this process that listens on a real socket, as `tickwell serve` has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import uvicorn

from serving.api.connections import Connection
from tests.support.pipeline import wait_for


@contextmanager
def listening_server(app: Any) -> Iterator[str]:
    """The URL at which a server answers in another thread, until the end."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", http=Connection, ws="none"
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for("the server listens", lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()
