"""`tickwell serve`"""

from __future__ import annotations

from typing import Annotated

import typer

from tickwell.late_imports import late_imports
from tickwell.settings import Settings


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 127.0.0.1 unless set.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 8001 unless set.")] = None,
    compress: Annotated[
        str | None,
        typer.Option(
            help="Compress answers above 8 KB for clients that accept it: on, off, or auto, which "
            "is on unless the address is this machine's own."
        ),
    ] = None,
) -> None:
    """Serve features over HTTP, until stopped."""
    settings = Settings.of_stack(host=host, port=port, compress=compress)
    settings.need("redis", "redis_hot", "postgres")
    with late_imports():
        import uvicorn

        from serving.api.connections import Connection
        from serving.app import ServerOptions, create_app
    stores = (settings.redis, settings.redis_hot, settings.postgres)
    options = ServerOptions(*stores, cluster=settings.cluster, compress=settings.compresses)
    app = create_app(options)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        limit_concurrency=2_000,
        http=Connection,
        proxy_headers=False,  # nothing here depends on who asks
        ws="none",
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=5,
    )
