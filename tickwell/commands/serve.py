"""`tickwell serve`"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from tickwell import json_logs, server_settings
from tickwell.late_imports import late_imports
from tickwell.settings import Settings

if TYPE_CHECKING:
    from ssl import SSLContext


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
    keys: Annotated[
        bool | None,
        typer.Option(
            "--keys/--no-keys",
            help="Requests need an API key; unless set, they do on anything but loopback.",
        ),
    ] = None,
    tls_cert: Annotated[
        str | None, typer.Option(help="File with the certificate and its chain (PEM), for HTTPS.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(help="File with its key (PEM), unless the first one has it.")
    ] = None,
) -> None:
    """Serve features over HTTP, until stopped."""
    settings = Settings.of_stack(
        host=host,
        port=port,
        keys=None if keys is None else server_settings.REQUIRED if keys else server_settings.NONE,
        tls_cert=tls_cert,
        tls_key=tls_key,
        compress=compress,
    )
    settings.need("redis", "redis_hot", "postgres")
    context_factory = _context_factory(settings)
    server_settings.check_has_keys(settings)
    json_logs.configure()
    with late_imports():
        import uvicorn

        from serving.api.connections import Connection
        from serving.app import ServerOptions, create_app
    stores = (settings.redis, settings.redis_hot, settings.postgres)
    app = create_app(
        ServerOptions(
            *stores,
            cluster=settings.cluster,
            compress=settings.compresses,
            needs_keys=server_settings.needs_keys(settings),
            cors_origins=server_settings.cors_origins(settings),
        )
    )
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        ssl_context_factory=context_factory,
        access_log=False,
        limit_concurrency=2_000,
        http=Connection,
        proxy_headers=False,  # nothing here depends on who asks
        ws="none",
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=5,
    )


def _context_factory(settings: Settings) -> Callable[..., SSLContext] | None:
    """Makes the context of a server that speaks HTTPS. Raises `CertificateError`."""
    if not settings.tls_cert:
        return None
    from tickwell.certificate import Files, ServedCertificate

    certificate = ServedCertificate(Files(settings.tls_cert, settings.tls_key))
    return lambda *_: certificate.context()
