"""The server of one process: its application and uvicorn, as the settings say."""

from __future__ import annotations

import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE

from serving.api.connections import Connection
from serving.api.server import DrainingServer, Patience
from serving.app import ServerOptions, create_app
from serving.process import ThisProcess
from serving.stores.most_read_files import directory_of
from tickwell import server_settings
from tickwell.server.listening import BACKLOG, listeners
from tickwell.settings import Settings

END_SECONDS = 10.0
"""Seconds that a process has to end by itself once nothing is answered any more."""


def application(settings: Settings, process: ThisProcess) -> Starlette:
    """The application of a process."""
    options = ServerOptions(
        redis=settings.redis,
        redis_hot=settings.redis_hot,
        postgres=settings.postgres,
        cluster=settings.cluster,
        hot=settings.hot,
        deadline_ms=settings.deadline_ms,
        requests_in_flight=settings.requests_in_flight,
        most_read=directory_of(Path(settings.data)),
        served_log=settings.served_log_path,
        served_log_every=settings.served_log_every,
        compress=settings.compresses,
        needs_keys=server_settings.needs_keys(settings),
        cors_origins=server_settings.cors_origins(settings),
        lake=settings.lake_path,
        rejected_topic=settings.rejected_topic,
    )
    return create_app(options, process=process)


def config_of(settings: Settings, app: Starlette) -> uvicorn.Config:
    """How uvicorn serves it. Raises `CertificateError`."""
    certificate = server_settings.certificate(settings)
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        ssl_context_factory=None if certificate is None else lambda *_: certificate.context(),
        access_log=False,
        http=Connection,
        proxy_headers=False,  # nothing here depends on who asks
        ws="none",
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_seconds,
    )


def serve_alone(settings: Settings) -> None:
    """Serve in this process, until a signal.

    Raises `TickwellError` where the server cannot listen.
    """
    sockets = listeners(settings.host, settings.port)
    process = ThisProcess()
    config = config_of(settings, application(settings, process))
    patience = Patience(settings.stop_pause_seconds, settings.drain_seconds)
    run(DrainingServer(config, patience, process), sockets)


def _end_for_sure() -> None:
    """Have the system end this process if it has not ended by itself: a thread may never end."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, END_SECONDS)


def run(server: DrainingServer, sockets: list[socket.socket]) -> None:
    """Run a server to its end; exits where it did not start."""
    server.at_end = _end_for_sure
    with suppress(KeyboardInterrupt):  # the signal that stopped it, raised again
        server.run(sockets)
    if not server.started:
        sys.exit(STARTUP_FAILURE)
