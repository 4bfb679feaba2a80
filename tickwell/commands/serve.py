"""`tickwell serve`"""

from __future__ import annotations

from typing import Annotated

import typer

from tickwell import json_logs, server_settings
from tickwell.late_imports import late_imports
from tickwell.open_files import allow_most_files
from tickwell.settings import Settings


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 127.0.0.1 unless set.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 8001 unless set.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that share the port, one unless set; SIGHUP replaces them in turn."
        ),
    ] = None,
    hot: Annotated[
        bool | None,
        typer.Option("--hot/--no-hot", help="Read rows from the hot tier, where there is one."),
    ] = None,
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
    allow_most_files()
    settings = Settings.of_stack(
        host=host,
        port=port,
        serve_workers=workers,
        hot=hot,
        compress=compress,
        keys=None if keys is None else server_settings.REQUIRED if keys else server_settings.NONE,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    settings.need("redis", "postgres")
    server_settings.certificate(settings)  # what is wrong with it is said before anything starts
    server_settings.check_has_keys(settings)
    json_logs.configure()
    if settings.serve_workers > 1:
        from tickwell.server.supervisor import Supervisor

        Supervisor(settings).run()
        return
    with late_imports():
        from tickwell.server.serving import serve_alone
    serve_alone(settings)
