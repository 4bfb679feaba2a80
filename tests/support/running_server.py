"""An application on a real port, in a thread of the test's process, as `tickwell serve` runs it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import uvicorn

from serving.api.connections import Connection
from tests.support.pipeline import wait_for


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The URL of a server that has started."""
    config = uvicorn.Config(
        app, http=Connection, ws="none", log_level="warning", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_for("the server has started", lambda: server.started or not thread.is_alive())
            assert server.started
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
