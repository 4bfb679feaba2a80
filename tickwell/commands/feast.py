"""`tickwell feast`"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from tickwell.errors import TickwellError
from tickwell.late_imports import late_imports
from tickwell.settings import Settings

feast = typer.Typer(help="Let clients of Feast read from this server.", no_args_is_help=True)

STORE, REGISTRY = "feature_store.yaml", "registry.db"
WRITTEN_BY = "# Written by `tickwell feast export`, which replaces it"
"""How a file begins that may be written again."""

PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
"""What Feast takes as a project."""


@feast.callback()
def options() -> None:
    """Let clients of Feast read from this server."""


@feast.command()
def export(
    directory: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.")],
    url: Annotated[
        str | None, typer.Option(help="The server as clients reach it; TICKWELL_URL unless set.")
    ] = None,
    project: Annotated[str, typer.Option(help="Feast's name of the project.")] = "tickwell",
    key_variable: Annotated[
        str | None,
        typer.Option(
            help="The variable in which clients have their API key; none is sent unless set."
        ),
    ] = None,
    ca: Annotated[
        str | None,
        typer.Option(help="Path, on clients, of the authority's certificate (PEM) for https."),
    ] = None,
) -> None:
    """Write feature_store.yaml and the registry that Feast's SDK needs to read features here.

    Export again when features have changed. The files hold no secrets.
    """
    # Where clients reach the server does not say where the stack is.
    settings = Settings.of_stack()
    settings.need("postgres")
    reached = settings.url if url is None else Settings.load(url=url).url
    if not PROJECT.fullmatch(project):
        raise TickwellError(f"--project {project}: Feast takes letters, digits and _")
    if urlsplit(reached).username is not None:
        raise TickwellError(
            "the URL names a user, and these files hold no secrets: --key-variable names the "
            "variable in which clients have their key"
        )
    try:
        with late_imports():
            from registry import catalog
            from registry.database.engine import connect
            from tickwell.feast_registry import registry_file
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("google"):
            raise
        raise TickwellError(
            "Feast's registry needs protobuf: pip install 'tickwell[feast]'"
        ) from None
    store = directory / STORE
    if store.exists() and not store.read_text("utf-8", "replace").startswith(WRITTEN_BY):
        raise TickwellError(
            f"{store} was not written by this command, and is left alone: name another directory"
        )
    recorded = catalog.load(connect(settings.postgres))
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / REGISTRY, registry_file(recorded, project, time.time_ns()))
    _write(store, _configuration(reached, project, key_variable, ca).encode())
    typer.echo(
        f"{len(recorded.active)} features in {len(recorded.sources)} views: "
        f"FeatureStore(repo_path={str(directory)!r}) reads them from {reached}"
    )


def _configuration(url: str, project: str, key_variable: str | None, ca: str | None) -> str:
    """The text of feature_store.yaml; JSON's texts are YAML's too."""
    lines = [
        f"{WRITTEN_BY}.",
        f"project: {json.dumps(project)}",
        "provider: local",
        f"registry: {json.dumps(REGISTRY)}",
        "online_store:",
        "  type: remote",
        f"  path: {json.dumps(url.rstrip('/'))}",
    ]
    if ca is not None:
        lines.append(f"  cert: {json.dumps(ca)}")
    if key_variable is not None:
        # Feast sends what it calls a token as `Authorization: Bearer`
        lines += ["auth:", "  type: oidc", f"  token_env_var: {json.dumps(key_variable)}"]
    lines.append("entity_key_serialization_version: 3")
    return "\n".join(lines) + "\n"


def _write(file: Path, content: bytes) -> None:
    """Write a file so that a client that reads it meanwhile has the old one or the new one."""
    new = file.with_name(f".{file.name}.new")
    new.write_bytes(content)
    os.replace(new, file)
