"""What `tickwell training-set` prints of sets that it has built or compared."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from serving.history.named import Proved
    from serving.history.training_set import Report
    from serving.history.verification import Verified


def built(report: Report) -> None:
    """Of each feature how many rows have which status."""
    from rich.console import Console
    from rich.table import Table

    from registry.formats.status import Status

    seen = [s.value for s in Status if any(c[s.value] for c in report.statuses.values())]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("feature")
    table.add_column("version")
    for name in seen:
        table.add_column(name, justify="right")
    for name, counts in report.statuses.items():
        version = report.versions[name].partition("@")[2]
        table.add_row(name, version, *(f"{counts[status]:,}" for status in seen))
    console = Console()
    if not console.is_terminal:
        console.width = 1000
    console.print(table)
    plans = ", ".join(f"{source} {plan}" for source, plan in sorted(report.plans.items()))
    typer.echo(f"ticks were read by: {plans}", err=True)
    if report.open:
        typer.echo(f"open: {report.open:,} rows, which may be others later", err=True)
    for name, served in report.served.items():
        shown = ", ".join(f"{times:,} of {one or 'none yet'}" for one, times in served.items())
        typer.echo(f"{name}: {shown}", err=True)
    for name, holes in report.holes.items():
        if holes:
            ref = report.versions[name]
            typer.echo(
                f"{name}: {holes:,} of the missing ones are of ticks of which {ref}, or a part of "
                "it, was never computed: `tickwell backfill` computes a version's",
                err=True,
            )


def built_json(report: Report) -> None:
    """The same as JSON."""
    features: dict[str, Any] = {
        name: {
            "version": report.versions[name].partition("@")[2],
            "statuses": dict(counts),
            "holes": report.holes[name],
        }
        for name, counts in report.statuses.items()
    }
    for name, served in report.served.items():
        features[name]["versions"] = dict(served)
    typer.echo(
        json.dumps(
            {
                "rows": report.rows,
                "open": report.open,
                "plans": report.plans,
                "features": features,
            }
        )
    )


def verified(found: Verified, as_json: bool) -> None:
    """What differs of the rows of a file."""
    if as_json:
        features = {name: asdict(one) for name, one in found.features.items()}
        same = {"rows": found.rows, "same": found.is_same, "features": features}
        typer.echo(json.dumps(same))
    for name, one in found.features.items():
        if one.rows:
            typer.echo(
                f"{name}: {one.rows:,} rows differ, the first is row {one.first}; of them "
                f"{one.filled:,} were missing and are not any more",
                err=True,
            )


def proved(found: Proved, as_json: bool) -> None:
    """What differs of a set that is kept by name."""
    if as_json:
        same = {"rows": found.rows, "same": found.is_same, "features": found.same}
        typer.echo(json.dumps(same))
    for name, (now, before) in found.missing.items():
        typer.echo(
            f"{name}: it has other bits; {now:,} rows are missing, and {before:,} were", err=True
        )
