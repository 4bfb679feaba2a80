"""`tickwell migrate`"""

from __future__ import annotations

from typing import Annotated

import typer

from tickwell.settings import Settings


def migrate(
    features: Annotated[str | None, typer.Option(help="Features file to record.")] = None,
    partitions: Annotated[
        int | None, typer.Option(help="Partitions of topics that are created.")
    ] = None,
) -> None:
    """Bring tables, definitions, partitions and topics to what this version needs."""
    from pipelines.kafka.topic_settings import topic_remarks
    from registry.features_file import read
    from registry.lifecycle.recording import remarks
    from tickwell.migrate import migrate as bring_up_to_date

    settings = Settings.of_stack(features=features, partitions=partitions)
    recorded = bring_up_to_date(settings)
    typer.echo(
        f"{len(recorded.sources)} sources and {len(recorded.features)} feature versions are "
        "recorded; topics and tables are ready"
    )
    topics = [source.topic for source in recorded.sources.values()]
    for remark in (
        *remarks(recorded, read(settings.features_path)),
        *topic_remarks(settings.kafka_connection, topics),
    ):
        typer.echo(remark)
