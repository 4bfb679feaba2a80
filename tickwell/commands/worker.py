"""`tickwell worker`"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tickwell.late_imports import late_imports
from tickwell.repeated_lines import CountedLines
from tickwell.settings import Settings

if TYPE_CHECKING:
    from pipelines.verify.continual import Continual


class SinkName(StrEnum):
    """The store that a worker writes to."""

    ONLINE = "online"
    OFFLINE = "offline"


def worker(
    sink: Annotated[SinkName, typer.Option(help="online: Redis; offline: Postgres.")],
    instance: Annotated[
        str | None, typer.Option(help="This worker's name in its group; another for each worker.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics on this port.")
    ] = None,
) -> None:
    """Bring ticks from Kafka into one store, until stopped."""
    settings = Settings.load(instance=instance, metrics_port=metrics_port)
    settings.need("kafka", "redis", "redis_hot", "postgres")
    with late_imports():
        from pipelines.live.worker import run_worker
        from pipelines.live.worker_options import WorkerOptions
        from registry.features_file import read_sources
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        handlers=[CountedLines()],
        force=True,
    )
    for chatty in ("aiokafka", "faust", "httpx2", "mode"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    options = WorkerOptions(
        sink=sink.value,
        kafka=settings.kafka_connection,
        redis=settings.redis,
        redis_hot=settings.redis_hot,
        postgres=settings.postgres,
        group=f"{settings.group}-{sink.value}",
        instance=f"{settings.instance_name}-{sink.value}",
        static_member=settings.static_member,
        session=settings.session,
        rejected_topic=settings.rejected_topic,
        declared=read_sources(settings.features_path) if settings.features else None,
        capacity=settings.capacity,
        cluster=settings.cluster,
        metrics_port=settings.metrics_port or None,
        metrics_host=settings.metrics_host,
        schema_registry=settings.registry_connection,
        verifying=_verifying(settings) if sink is SinkName.OFFLINE else None,
    )
    raise typer.Exit(run_worker(options))


def _verifying(settings: Settings) -> Continual | None:
    with late_imports():
        from tickwell.verifying import verifying
    return verifying(settings)
