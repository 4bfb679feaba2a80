"""`tickwell features plan`, `apply` and what else changes the registry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickwell.commands.features import (
    Json,
    Name,
    Note,
    Ref,
    RefOrSet,
    WithoutHistory,
    opened,
    plain,
    print_json,
)
from tickwell.commands.features import (
    features as features,
)
from tickwell.errors import TickwellError
from tickwell.settings import Settings

if TYPE_CHECKING:
    from registry.definitions import Catalog
    from registry.lifecycle.plan import Plan
    from registry.lifecycle.registry import Registry
    from tickwell.planned_values import VersionValues

File = Annotated[
    Path | None, typer.Option("--features", help="The features file; TICKWELL_FEATURES unless set.")
]
WITHIN = "workers and servers follow within a second"


@features.command()
def plan(
    file: File = None,
    out: Annotated[
        Path | None, typer.Option(help="Save the plan here, for `tickwell features apply FILE`.")
    ] = None,
    values: Annotated[
        bool,
        typer.Option(help="Also the values of the last ticks that new versions would have had."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Show what applying the features file would change, cost and break; change nothing."""
    with opened() as (settings, registry):
        from registry.lifecycle import plan as plans

        made = _planned(settings, registry, file)
        if out is not None:
            out.write_bytes(plans.encode(made))
        valued = _valued(settings, registry, made) if values else []
    if as_json:
        about = {"serial": made.serial, "made_at": made.made_at}
        print_json({**about, **plain(made.page), "values": valued})
    else:
        _show(made, valued)
    if out is not None:
        typer.echo(f"saved: `tickwell features apply {out}` applies it", err=True)


@features.command()
def apply(
    saved: Annotated[
        Path | None, typer.Argument(help="A plan that was saved; one is made unless given.")
    ] = None,
    file: File = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    with_backfill: Annotated[
        bool, typer.Option("--backfill", help="Then backfill the new versions.")
    ] = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Record what the features file declares: new features go live, new versions stand by."""
    with opened() as (settings, registry):
        from registry.errors import StalePlan
        from registry.features_file import Text
        from registry.serial import serial
        from tickwell.migrate import apply as apply_file
        from tickwell.migrate import make_topics, remarks_on_topics

        if saved is not None:
            if file is not None:
                raise TickwellError("name a saved plan or --features, not both")
            made = _read_plan(saved)
        else:
            made = _planned(settings, registry, file)
        asks = not yes and saved is None
        if not as_json:
            decides = asks and sys.stdin.isatty()  # else nobody would wait for the values
            _show(made, _valued(settings, registry, made) if decides else [])
        if made.changes_nothing:
            if saved is not None and serial(registry.engine) != made.expected:
                raise StalePlan
            if settings.kafka:  # one that was killed before it made them is repeated
                make_topics(settings, registry.catalog())
            if as_json:
                print_json(made.page)
            if with_backfill:
                _backfill(settings, registry, made)
            return
        if asks:
            _confirm()
        settings.need("kafka")
        known = apply_file(settings, registry, Text(made.file, made.text), made.expected, note)
        remarks = remarks_on_topics(settings, known) if made.page.new_sources else []
        if as_json:
            print_json(made.page)
        else:
            typer.echo(f"applied; {WITHIN}")
            for remark in remarks:
                typer.echo(remark)
        if with_backfill:
            _backfill(settings, registry, made)


def _backfill(settings: Settings, registry: Registry, made: Plan) -> None:
    """Backfill what a file declares and that lacks values, until one backfill is stopped.

    Also what was recorded before: a command that was killed goes on when it is repeated.
    """
    from registry.features_file import Text, read_text
    from tickwell.commands.backfill import STOPPED, Asked, run_backfill

    known = registry.catalog()
    for feature in read_text(Text(made.file, made.text), known).features:
        if feature.source is None or known.is_retired(feature.ref):
            continue
        found = registry.details(feature.ref)
        if found.covered < found.stored:
            _, stopped = run_backfill(settings, registry, Asked(feature.ref))
            if stopped:
                raise typer.Exit(STOPPED)


@features.command()
def activate(
    ref: Ref,
    without_history: WithoutHistory = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Let a feature's name mean a version that has values of all that the active one has."""
    _moved(lambda registry: registry.activate(ref, note, without_history), ref, as_json)


@features.command()
def rollback(name: Name, note: Note = "", as_json: Json = False) -> None:
    """Let a feature's name mean what it did before its version was activated."""
    _moved(lambda registry: registry.roll_back(name, note), name, as_json)


@features.command()
def deprecate(
    ref: RefOrSet,
    replacement: Annotated[
        str | None, typer.Option(help="The version that its readers should take.")
    ] = None,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Say that a version, or a set, is to be given up; it is computed on, and answers say so."""
    _withdrawn(lambda registry: registry.deprecate(ref, replacement, note), ref, as_json)


@features.command()
def retire(ref: RefOrSet, note: Note = "", as_json: Json = False) -> None:
    """Give up a version, or a set, that is deprecated and that nothing uses."""
    _withdrawn(lambda registry: registry.retire(ref, note), ref, as_json)


@features.command()
def use(
    ref: Annotated[str, typer.Argument(help="A set, as set:momentum@1.")],
    model: Annotated[str, typer.Option(help="The model's name.")],
    end: Annotated[bool, typer.Option("--end", help="It reads the set no more.")] = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Put on record that a model reads a set, for the lineage."""
    with opened() as (_, registry):
        if end:
            registry.stop_using(ref, model, note)
        else:
            registry.use(ref, model, note)
    if as_json:
        print_json({"set": ref, "model": model, "reads": not end})
    else:
        typer.echo(f"{model} reads {ref}{' no more' if end else ''}")


def _planned(settings: Settings, registry: Registry, file: Path | None) -> Plan:
    from registry.features_file import text_of

    return registry.plan(text_of(settings.features_path if file is None else file))


def _valued(settings: Settings, registry: Registry, made: Plan) -> list[VersionValues]:
    from tickwell.planned_values import planned_values

    return planned_values(settings.postgres, registry, made) if made.page.new else []


def _read_plan(saved: Path) -> Plan:
    from registry.lifecycle import plan as plans

    with saved.open("rb") as file:
        read = file.read(plans.LONGEST_FILE + 1)
    if len(read) > plans.LONGEST_FILE:
        raise TickwellError(f"{saved} is larger than any plan: make it again")
    return plans.decode(read)


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise TickwellError(
            "nothing was changed: nobody can be asked here, so give a saved plan or --yes"
        )
    typer.confirm("Apply this?", abort=True)


def _moved(change: Callable[[Registry], Catalog], text: str, as_json: bool) -> None:
    with opened() as (_, registry):
        from registry.lifecycle.states import name_of

        known = change(registry)
        name = name_of(known, text)
        version = known.active[name]
    if as_json:
        print_json({"name": name, "version": version})
    else:
        typer.echo(f"{name} means {version} now; {WITHIN}")


def _withdrawn(change: Callable[[Registry], Catalog], ref: str, as_json: bool) -> None:
    with opened() as (_, registry):
        from registry.lifecycle.states import state_of

        known = change(registry)
        state, withdrawal = state_of(known, ref), known.withdrawn[ref]
    if as_json:
        print_json({"ref": ref, "state": state, "replacement": withdrawal.replacement})
    else:
        instead = "" if withdrawal.replacement is None else f"; take {withdrawal.replacement}"
        typer.echo(f"{ref} is {state} since {withdrawal.since:%Y-%m-%d}{instead}")


def _show(plan: Plan, valued: Sequence[VersionValues]) -> None:
    from tickwell.plan_lines import plan_lines

    for line in plan_lines(plan, valued):
        typer.echo(line)
