"""`tickwell keys create`, `list` and `revoke`"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.current_user import current_user
from tickwell.errors import TickwellError, one_line
from tickwell.settings import Settings
from tickwell.tables import show

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from registry.lifecycle.api_keys import Recorded

keys = typer.Typer(
    name="keys",
    help="API keys: make them, list them, revoke them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class ScopeName(StrEnum):
    """The scopes of `registry.api_keys`, which is not imported before it is needed."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="A name for it, as in logs: a service, a person.")],
    scope: Annotated[
        list[ScopeName],
        typer.Option(help="What it allows, once for each: to read, to write, to make keys."),
    ],
    expires: Annotated[
        str | None, typer.Option(help="Time after which it is over: 90d, 12h; never unless set.")
    ] = None,
) -> None:
    """Make a key and print it, once: only its SHA-256 is kept."""
    valid_for = None if expires is None else _duration(expires)
    with _postgres() as (settings, engine):
        from registry.api_keys import Scope
        from registry.lifecycle import api_keys

        scopes = {Scope(chosen.value) for chosen in scope}
        made = api_keys.create(engine, name, scopes, current_user(), valid_for)
        typer.echo(made.text)
        typer.echo(_said(made.recorded), err=True)
        try:
            api_keys.publish(engine, lambda: _redis(settings))
        except api_keys.FAILURES as error:
            typer.echo(
                f"Redis did not take a copy of the keys ({one_line(error)}): servers that cannot "
                "reach Postgres will not know this one until another key is made or revoked, or "
                "an online worker starts",
                err=True,
            )


@keys.command("list")
def list_keys(
    revoked: Annotated[
        bool, typer.Option("--revoked", help="Also those that are revoked.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the keys: what each allows, until when, and who made it."""
    with _postgres() as (_, engine):
        from registry.lifecycle import api_keys

        found = api_keys.listed(engine, revoked)
    if as_json:
        typer.echo(json.dumps([key._asdict() for key in found], default=datetime.isoformat))
    elif found:
        _show(found)
    else:
        typer.echo(
            "there are no keys; `tickwell keys create NAME --scope read` makes one", err=True
        )


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Its name, or its number in `tickwell keys list`.")],
) -> None:
    """Let a key be valid no longer: servers refuse it within a second."""
    with _postgres() as (settings, engine):
        from registry.lifecycle import api_keys

        revoked = api_keys.revoke(engine, lambda: _redis(settings), key, current_user())
    when = f"{revoked.revoked_at:%Y-%m-%d %H:%M:%S} UTC"
    typer.echo(f"key {revoked.id} {revoked.name!r} is revoked (by {revoked.revoked_by}, {when})")


@contextmanager
def _postgres() -> Iterator[tuple[Settings, Engine]]:
    settings = Settings.of_stack()
    settings.need("postgres", "redis")
    from registry.database.engine import connect

    engine = connect(settings.postgres, connect_timeout=5, statement_timeout_ms=10_000)
    try:
        yield settings, engine
    finally:
        engine.dispose()


def _redis(settings: Settings) -> Any:
    from registry import redis_clients

    return redis_clients.warm(settings.redis, settings.cluster)


def _duration(text: str) -> timedelta:
    from registry.durations import DURATION, NANOSECONDS

    match = DURATION.fullmatch(text)
    seconds = int(match[1]) * NANOSECONDS[match[2]] / 10**9 if match else 0
    if not 0 < seconds <= 10**9:
        raise TickwellError(
            f"--expires {text}: must be a time such as 90d or 12h, of at most 3650 days"
        )
    return timedelta(seconds=seconds)


def _said(key: Recorded) -> str:
    until = (
        f"until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else "until it is revoked"
    )
    return (
        f"key {key.id} {key.name!r} ({', '.join(key.scopes)}) is valid {until}; it is not shown "
        "again. Send it as the header `Authorization: Bearer KEY` or `X-API-Key: KEY`"
    )


def _show(found: Sequence[Recorded]) -> None:
    show(
        ("number", "name", "scopes", "state", "made", "by", "SHA-256"),
        (
            (
                str(key.id),
                key.name,
                " ".join(key.scopes),
                _state(key),
                f"{key.created_at:%Y-%m-%d}",
                key.created_by,
                f"{key.fingerprint}...",
            )
            for key in found
        ),
    )


def _state(key: Recorded) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d} by {key.revoked_by}"
    if key.expires_at is None:
        return "valid"
    over = key.expires_at <= datetime.now(UTC)
    return f"{'expired' if over else 'valid until'} {key.expires_at:%Y-%m-%d %H:%M}"
