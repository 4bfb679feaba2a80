"""`tickwell features`: what is recorded of features, and everything that changes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.settings import Settings
from tickwell.tables import show

if TYPE_CHECKING:
    from registry.lifecycle.audit import Entry
    from registry.lifecycle.registry import Registry

features = typer.Typer(
    name="features",
    help="Features: see what is recorded, plan a change, make it, take it back.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SHOWN_STARTS = 3
"""Partitions of which the audit shows where a row schema begins; `--json` has more of them."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="A feature, as price_sma_5.")]
Ref = Annotated[str, typer.Argument(help="A version, as price_sma_5@1.1.0.")]
RefOrSet = Annotated[
    str, typer.Argument(help="A version, as price_sma_5@1.1.0, or a set, as set:momentum@1.")
]
Note = Annotated[str, typer.Option(help="Why, for the audit.")]
WithoutHistory = Annotated[
    bool, typer.Option("--without-history", help="Do without values from before its first tick.")
]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many lines at most.")]


@contextmanager
def opened() -> Iterator[tuple[Settings, Registry]]:
    """The settings, and the registry that they name."""
    settings = Settings.of_stack()
    settings.need("postgres")
    from registry.database.engine import connect
    from tickwell.migrate import registry_of

    engine = connect(settings.postgres, connect_timeout=5, statement_timeout_ms=30_000)
    try:
        yield settings, registry_of(settings, engine)
    finally:
        engine.dispose()


def print_json(found: Any) -> None:
    """Print a value of the registry as JSON."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(plain(found)), indent=2).decode())


def plain(found: Any) -> Any:
    """The same with named tuples as objects, which JSON would have as arrays."""
    if hasattr(found, "_asdict"):
        return {name: plain(value) for name, value in found._asdict().items()}
    if isinstance(found, dict):
        return {name: plain(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [plain(value) for value in found]
    if hasattr(found, "__struct_fields__"):
        return {name: plain(getattr(found, name)) for name in found.__struct_fields__}
    return found


@features.command("list")
def list_features(
    every: Annotated[
        bool, typer.Option("--all", help="Every version, also those that are not active.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the features: what each name means, of what it is, who owns it."""
    with opened() as (_, registry):
        from registry.lifecycle.states import state_of

        known = registry.catalog()
        found = [
            (feature, state)
            for feature in known.features.values()
            if (state := state_of(known, feature.ref)) == "active" or every
        ]
    if as_json:
        print_json([{**plain(feature), "state": state} for feature, state in found])
        return
    show(
        ("feature", "state", "of", "expression", "unit", "owner"),
        (
            (
                feature.ref,
                state,
                feature.source or f"({', '.join(feature.entity)})",
                feature.expression,
                feature.unit,
                feature.owner,
            )
            for feature, state in found
        ),
    )
    for one in known.sets.values():
        typer.echo(f"{one.ref} ({state_of(known, one.ref)}): {', '.join(one.features)}")


@features.command("show")
def show_version(
    ref: Annotated[str, typer.Argument(help="A feature or one of its versions.")],
    as_json: Json = False,
) -> None:
    """Show everything about a version: its definition, its state, what reads it."""
    with opened() as (_, registry):
        from registry.feature_tables import table_of
        from registry.lifecycle.states import active_or_newest

        found = registry.details(active_or_newest(registry.catalog(), ref))
    if as_json:
        print_json(found)
        return
    said: dict[str, Any] = {
        **table_of(found.feature),
        "state": found.state,
        "values of": f"{found.covered:,} of {found.stored:,} stored messages"
        if found.feature.source
        else "",
        "read by": found.users,
        "recorded": f"{found.created_at} by {found.created_by}",
        "note": found.note,
        "digest": found.digest,
    }
    for name, value in said.items():
        if value:
            text = ", ".join(value) if isinstance(value, list) else str(value)
            typer.echo(f"{name:<12} {text}")


@features.command()
def history(name: Name, limit: Limit = 20, as_json: Json = False) -> None:
    """Show what a feature's name has meant, the newest first."""
    with opened() as (_, registry):
        found = registry.history(name, limit)
    if as_json:
        print_json(found)
        return
    show(
        ("at", "action", "version", "instead of", "by", "note"),
        (
            (
                f"{one.at:%Y-%m-%d %H:%M:%S}",
                one.action,
                one.version,
                one.previous or "-",
                one.actor,
                one.note,
            )
            for one in found
        ),
    )


@features.command()
def audit(
    name: Annotated[
        str, typer.Argument(help="A feature, a version, a set, or a source as source:price.")
    ],
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Show who changed what about a feature, its versions and its rows, the newest first."""
    with opened() as (_, registry):
        found = registry.audit(name, limit)
    if as_json:
        print_json(found)
        return
    show(
        ("at", "by", "action", "subject", "request", "note"),
        (
            (
                f"{one.at:%Y-%m-%d %H:%M:%S}",
                one.actor,
                one.action,
                _subject(one),
                one.request_id or "-",
                one.note,
            )
            for one in found
        ),
    )


def _subject(one: Entry) -> str:
    """What a line is about; a row schema with where it begins."""
    from registry.lifecycle.audit import NEW_SCHEMA

    if one.action != NEW_SCHEMA:
        return one.subject
    shown = [f"{at.topic}[{at.partition}] {at.offset}" for at in one.starts[:SHOWN_STARTS]]
    more = len(one.starts) - SHOWN_STARTS
    shown += [f"{more} more"] if more > 0 else []
    begins = f"from {', '.join(shown)}" if shown else "not written yet"
    return f"{one.subject} of {one.after['source']}, {begins}"


@features.command()
def lineage(
    name: Annotated[str, typer.Argument(help="A feature, a version, or a set.")],
    as_json: Json = False,
) -> None:
    """Show what something comes from, and what depends on it."""
    with opened() as (_, registry):
        found = registry.lineage(name)
    if as_json:
        print_json(found)
        return
    for title, edges in (("comes from", found.upstream), ("is read by", found.downstream)):
        typer.echo(title if edges else f"{title}: nothing")
        for edge in edges:
            used, by = edge.used, edge.by
            typer.echo(f"  {used.kind} {used.name} -> {by.kind} {by.name}")


@features.command()
def search(
    text: Annotated[list[str], typer.Argument(help="A name, or words.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="Features of a page.")] = 20,
    after: Annotated[str | None, typer.Option(help="The last feature of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """Find features by name, words, tags, owner, source, topic, fields and functions."""
    with opened() as (_, registry):
        found = registry.search(" ".join(text), limit, after)
    if as_json:
        print_json(found)
        return
    for word, others in found.taken_for.items():
        typer.echo(f"{word} is taken for {', '.join(others)}", err=True)
    show(("feature", "description"), ((one.name, one.description) for one in found.features))
    if found.next is not None:
        typer.echo(f"more: --after {found.next}", err=True)
    if not found.forgives_typing:
        typer.echo("this Postgres has no pg_trgm, so typing errors are not forgiven", err=True)


@features.command()
def usage(
    name: Name,
    days: Annotated[int, typer.Option(min=1, max=400, help="Days to look back, with today.")] = 30,
    as_json: Json = False,
) -> None:
    """Show who reads which version of a feature, how often, and when last."""
    with opened() as (_, registry):
        from registry.lifecycle.usage import sparkline

        found = registry.usage(name, days)
    if as_json:
        print_json(found)
        return
    if not found.usage:
        typer.echo(f"nobody has read {found.name} in {days} days")
        return
    show(
        ("version", "consumer", "values read", f"{days} days", "last read"),
        (
            (
                one.version,
                one.consumer,
                f"{one.total:,}",
                sparkline(one.reads),
                f"{one.last_read:%Y-%m-%d %H:%M:%S}",
            )
            for one in found.usage
        ),
    )


@features.command()
def diff(ref: Ref, other: Ref, as_json: Json = False) -> None:
    """Show in what two versions differ."""
    with opened() as (_, registry):
        found = registry.diff(ref, other)
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo(f"{ref} and {other} say the same")
        return
    show(("setting", ref, other), ((one.setting, one.was, one.now) for one in found))


@features.command()
def export(
    names: Annotated[
        list[str] | None, typer.Argument(help="Features; all that is recorded unless given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A file that is written; standard output unless given.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Definitions as JSON, which `apply` does not take.")
    ] = False,
) -> None:
    """Print what is recorded as a features file, which `apply` takes as it is."""
    with opened() as (_, registry):
        if as_json:
            print_json(registry.exported(names or []))
            return
        text = registry.export(names or [])
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, "utf-8")
        typer.echo(f"written to {out}", err=True)
