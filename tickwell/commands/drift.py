"""`tickwell drift`"""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.commands.looking import file_of, looking, with_progress_bar
from tickwell.late_imports import late_imports
from tickwell.settings import Settings
from tickwell.signals import stop_on
from tickwell.tables import show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.history.drift import FeatureDrift


def drift(
    training_set: Annotated[
        str, typer.Argument(help="A file of `training-set build`, or the name of a set.")
    ],
    since: Annotated[
        str, typer.Option(help="The first moment: 24h, 7d, or RFC 3339. Whole days are best.")
    ] = "24h",
    until: Annotated[
        str | None, typer.Option(help="The last moment, RFC 3339; now unless given.")
    ] = None,
    levels: Annotated[
        bool, typer.Option("--levels", help="Judge prices, volumes and their means, too.")
    ] = False,
    png: Annotated[Path | None, typer.Option(help="Draw the distributions to this file.")] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(help="Write metrics for the textfile collector of Prometheus' node exporter."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare what is served now with what a model was trained on.

    The rows of the training set ask their questions again, at the same hours of the last day. Ends
    with 0 where the features are alike, with 1 where one has drifted, and with 2 where it could not
    look.
    """
    with looking("it was not compared as a whole"):
        settings = Settings.of_stack()
        settings.need("postgres")
        with late_imports():
            from serving.history.drift import drift as drift_of
            from serving.history.moments import known_by, settled
            from serving.history.moments import since as since_of
            from serving.history.snapshot import LakeReads
            from tickwell import drift_metrics, drift_picture

        if png is not None:
            drift_picture.check_drawing()
        last = settled() if until is None else known_by("--until", until)
        first = since_of("--since", since, last)
        file = file_of(training_set)
        asked, shown = (training_set, training_set) if file is None else (file, file.name)
        stores = settings.postgres, LakeReads(settings.lake_path)
        stop = Event()
        stop_on(stop)
        began = time.monotonic()
        found = with_progress_bar(
            "drift",
            lambda show: drift_of(stores, asked, first, last, levels, show, stop),
        )
        if png is not None:
            drift_picture.draw(png, shown, found)
        if metrics is not None:
            drift_metrics.write(metrics, shown, found)
    if as_json:
        _print_json(found)
    else:
        _print(found)
    drifted = [name for name, one in found.items() if one.has_drifted]
    said = ", ".join(drifted) if drifted else "none has drifted"
    typer.echo(
        f"{len(found)} features in {time.monotonic() - began:.1f} s: {said}"
        + (" differ from training" if drifted else ""),
        err=True,
    )
    if drifted:
        raise typer.Exit(1)


def _print(found: Mapping[str, FeatureDrift]) -> None:
    rows = []
    for name, one in found.items():
        index = "" if one.index is None else f"{one.index:.3f}"
        threshold = ""
        if one.threshold is not None:
            threshold = f"{one.threshold.value:.3f}"
            threshold += f" of {one.threshold.days} days" if one.threshold.days else " by rule"
        values = f"{one.training:,}", f"{one.now:,}"
        statuses = ", ".join(
            f"{status} {share.training:.1%} to {share.now:.1%}"
            for status, share in one.shares.items()
            if status in one.worse or status == "ok"
        )
        verdict = one.verdict.value + (", statuses" if one.worse else "")
        rows.append(
            (name, one.version.partition("@")[2], verdict, index, threshold, *values, statuses)
        )
    columns = ("feature", "version", "verdict", "index", "threshold", "trained on", "now", "rows")
    show(columns, rows)


def _print_json(found: Mapping[str, FeatureDrift]) -> None:
    import json

    features: dict[str, Any] = {
        name: {
            "version": one.version.partition("@")[2],
            "verdict": one.verdict.value,
            "drifted": one.has_drifted,
            "index": one.index,
            "threshold": None if one.threshold is None else one.threshold._asdict(),
            "training": one.training,
            "now": one.now,
            "shares": {
                status: {**share._asdict(), "threshold": share.threshold._asdict()}
                for status, share in one.shares.items()
            },
            "bins": {
                "repeated": one.bins.repeated.tolist(),
                "bounds": one.bins.bounds.tolist(),
                "training": one.training_counts.tolist(),
                "now": one.now_counts.tolist(),
            },
        }
        for name, one in found.items()
    }
    typer.echo(json.dumps({"features": features}))
