"""`tickwell repair`"""

from __future__ import annotations

from enum import StrEnum
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from tickwell.commands.features import Json, Note, opened, print_json
from tickwell.errors import TickwellError
from tickwell.late_imports import late_imports
from tickwell.signals import stop_on

if TYPE_CHECKING:
    from pipelines.repair.rejected_edits import Chosen
    from pipelines.repair.repair import Repair, Repaired

STOPPED = 130


class EditKind(StrEnum):
    """What a rejected tick asks for."""

    INSERT = "insert"
    CANCEL = "cancel"
    CORRECT = "correct"


def repair(
    source: Annotated[str, typer.Argument(help="The source, as price.")],
    entity: Annotated[
        list[str] | None,
        typer.Option("--entity", "-e", help="Its key fields, as AAPL or P1/AAPL; repeat. All."),
    ] = None,
    kind: Annotated[
        list[EditKind] | None,
        typer.Option(
            help="insert: ticks that came late; cancel and correct: of earlier ticks; repeat. All."
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Of ticks that were rejected from then on: 7d, or RFC 3339.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="... up to then; RFC 3339.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change; change nothing.")
    ] = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Let late ticks, cancels and corrections, which live has rejected, into history.

    Rows are added, as revisions of those that change, and none is changed: `features.price` shows
    what was served, `features.price_repaired` what is right by now, and so does a training set with
    --as-known-at. One that was stopped or killed goes on when it is started again.
    """
    with opened() as (settings, registry):
        with late_imports():
            from pipelines.errors import StoreUnavailable
            from pipelines.repair.repair import Repair

        catalog = registry.catalog()
        if source not in catalog.sources:
            known = ", ".join(sorted(catalog.sources))
            raise TickwellError(f"there is no source {source!r}; there are {known}")
        chosen = _chosen(entity or [], kind or [], since, until)
        work = Repair(settings.postgres, catalog, source)
        stop = Event()
        if not dry_run:
            stop_on(stop)
        try:
            found = _with_progress_bar(work, chosen, registry.by.actor, note, dry_run, stop)
        except StoreUnavailable:
            if not dry_run:
                typer.echo("what was made stays: the same command goes on from here", err=True)
            raise
        sets = registry.sets_with(source, found.since)
        if not dry_run and (found.made or found.revised):
            registry.record_repair(source, dict(found.made), note)
            registry.extend_views({source})
    if as_json:
        print_json({**_as_json(found), "training_sets": sets})
    _print(found, dry_run)
    if sets:
        typer.echo(
            f"training sets that have moments behind these ticks: {', '.join(sets)}. They are of "
            "what was served, or known then, and stay so: build new ones --as-known-at a moment "
            "after the repair",
            err=True,
        )
    if stop.is_set():
        typer.echo("stopped: the same command goes on from here", err=True)
        raise typer.Exit(STOPPED)


def _chosen(
    entities: list[str], kinds: list[EditKind], since: str | None, until: str | None
) -> Chosen:
    from pipelines.repair.rejected_edits import Chosen
    from registry.formats.entity_name import entity_id
    from serving.history.moments import known_by, settled
    from serving.history.moments import since as since_of

    last = settled() if until is None else known_by("--until", until)
    return Chosen(
        entities=frozenset(entity_id(one.split("/")) for one in entities),
        kinds=frozenset(one.value for one in kinds or EditKind),
        since=0 if since is None else since_of("--since", since, last),
        until=2**63 - 1 if until is None else last,
    )


def _with_progress_bar(
    work: Repair, chosen: Chosen, actor: str, note: str, dry_run: bool, stop: Event
) -> Repaired:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = "repair", BarColumn(), MofNCompleteColumn(), "ticks", TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def report(done: Repaired) -> None:
            bar.update(task, completed=done.done, total=max(done.edits, done.done))

        if dry_run:
            return work.rehearse(chosen, report)
        return work.run(chosen, actor, note, report, stop)


def _print(found: Repaired, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for kind, count in sorted(found.made.items()):
        typer.echo(f"{kind}: {count:,} {would}made", err=True)
    for why, count in [*found.refused.items(), *found.unreadable.items()]:
        typer.echo(f"not made, {count:,}: {why}", err=True)
    if not found.edits and not found.done:
        typer.echo("there is nothing to repair", err=True)
        return
    typer.echo(f"{found.revised:,} other rows {would}revised", err=True)
    if found.open:
        typer.echo(
            f"{found.open:,} of the ticks are in windows of ticks that may yet come: the offline "
            "workers go on with these",
            err=True,
        )


def _as_json(found: Repaired) -> dict[str, object]:
    return {
        "edits": found.edits,
        "made": dict(found.made),
        "refused": dict(found.refused),
        "unreadable": dict(found.unreadable),
        "revised": found.revised,
        "open": found.open,
    }
