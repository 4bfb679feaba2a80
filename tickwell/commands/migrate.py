"""`tickwell migrate`"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from tickwell.late_imports import late_imports
from tickwell.settings import Settings

NO_CHANGE = "no rules have changed, and Redis knows the recorded ones"


def migrate(
    features: Annotated[str | None, typer.Option(help="Features file to record.")] = None,
    partitions: Annotated[
        int | None, typer.Option(help="Partitions of topics that are created.")
    ] = None,
    from_now: Annotated[
        bool,
        typer.Option(
            "--from-now",
            help="Changed rules of a source hold for what no store has yet; stop workers first.",
        ),
    ] = False,
) -> None:
    """Bring tables, partitions and topics to what this version needs.

    The features file is recorded where nothing is recorded yet. Later changes of it are seen by
    `tickwell features plan` and recorded by `tickwell features apply`.
    """
    settings = Settings.of_stack(features=features, partitions=partitions)
    with late_imports():
        from registry.features_file import read
        from registry.lifecycle.recording import remarks
        from tickwell.migrate import migrate as bring_up_to_date
        from tickwell.migrate import remarks_on_topics, rules_beginning
    with ExitStack() as stack:
        begin = stack.enter_context(rules_beginning(settings)) if from_now else None
        recorded = bring_up_to_date(settings, begin=begin)
    typer.echo(
        f"{len(recorded.sources)} sources and {len(recorded.features)} feature versions are "
        "recorded; topics and tables are ready"
    )
    if begin is not None:
        typer.echo("\n".join(map(str, begin.changes)) or NO_CHANGE)
    said = remarks(recorded, read(settings.features_path, recorded))
    for remark in (*said, *remarks_on_topics(settings, recorded)):
        typer.echo(remark)
