"""The Faust app: an agent for each source, and none of Faust's features that are not used.

Settings that are not Faust's defaults, and why:

- `stream_buffer_maxsize` 1: an event is a run of thousands of ticks, and while one is stored the
  next is fetched. More would only take memory; the default, 4,096 events, would hold a whole
  backlog.
- `consumer_group_instance_id` and a short session, unless configured otherwise: a worker that is
  killed and restarted gets its partitions back without a rebalance, and one that does not return is
  replaced in seconds.
- `broker_max_poll_interval` of years: while the store is unavailable nothing is fetched, and the
  worker keeps its partitions; Kafka is the buffer. A member that exceeded it would never return,
  since it rejoins with a fetch, and fetches after it has joined.
- `broker_request_timeout` 10 s, the default is 90: for so long a frozen broker holds up all that is
  read, also from the others (`kafka.connection.ANSWER_SECONDS`). Where a longer session is
  configured it is longer than that by `REBALANCE_SECONDS`: Faust refuses a session that is longer
  than a request may take, and the broker answers a request to join the group only when all members
  have asked, or their time for it is over.
- `stream_wait_empty` off: at shutdown it waits for unacked events, forever while the store is
  unavailable.
- No tables, no leader topic, no web server, no topics created: nothing that needs a topic of its
  own, nor the second of every start that Faust waits for tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from threading import Event

from faust.auth import Credentials, SASLCredentials, SSLCredentials
from faust.tables import TableManager
from faust.types import TP

from pipelines.compute.batch import Batch
from pipelines.kafka.connection import ANSWER_SECONDS, KafkaConnection
from pipelines.kafka.topic_identity import Incarnations
from pipelines.live.carrying import Carrying
from pipelines.live.materializer import Materializer
from pipelines.live.run_app import RunApp
from pipelines.live.source_agent import SourceAgent
from pipelines.stores.redis.hot_feed import HotFeed
from registry.source_rules import SourceRules

BUFFERED_RUNS = 1

REBALANCE_SECONDS = 4.0
"""Seconds that the members of a group have to join it again."""

HEARTBEAT_SECONDS = 0.5
"""Seconds between heartbeats to the broker; by them a member hears that another one has left."""

TEN_YEARS = 315_360_000.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of the consumer group `group`.

    `instance` is its name as a static member, None for a dynamic one. Without a heartbeat to the
    broker for `session` seconds it loses its partitions.
    """

    group: str
    instance: str | None
    session: float


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the app works on: each source, by name, with its rules and its materializer."""

    materializers: Mapping[str, Materializer]
    rules: Mapping[str, SourceRules]
    incarnations: Incarnations
    watermarks: Callable[[Collection[TP]], Mapping[TP, int | None]]
    """The next offset that the store needs of each partition."""

    check_filled: Callable[[], None] = lambda: None
    """Raises `RedisEmptied` when Redis was emptied."""

    follow: Callable[[], None] = lambda: None
    """Takes over what was recorded in the registry since it was called last."""

    stop: Event = field(default_factory=Event)
    pace: float = 0.0
    """Seconds from the beginning of one fetch to the next; `FetchPacing` has the exceptions."""

    hot: HotFeed | None = None
    """What feeds hot with what the store has confirmed."""

    carrying: Carrying | None = None
    """What carries rows over into newer row schemas."""


class NoTables(TableManager):
    """Starts at once: there are no tables to wait for."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class SinkApp(RunApp):
    """A Faust app that brings runs into one store."""

    pipeline: Pipeline
    failed: asyncio.Future[BaseException]

    def watermarks(self, tps: Collection[TP]) -> Mapping[TP, int | None]:
        """The next offset that the store needs of each partition."""
        return self.pipeline.watermarks(tps)

    def may_stall(self, topic: str) -> bool:
        """Whether the source of a topic needs a schema registry."""
        materializer = self.pipeline.materializers.get(self.rules[topic].source.name)
        return materializer is not None and materializer.needs_schemas

    def is_stalled(self, topic: str) -> bool:
        """Whether the source of a topic, which needs a schema registry, waits for it."""
        return self.pipeline.materializers[self.rules[topic].source.name].waits_for_schemas

    def fail(self, error: BaseException) -> None:
        """End the worker with this error, if it is the first one."""
        self.failed.get_loop().call_soon_threadsafe(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_result(error)


def create_app(
    member: GroupMember,
    kafka: KafkaConnection,
    pipeline: Pipeline,
    on_batch: Callable[[Batch], None],
) -> SinkApp:
    """The app of a member of a consumer group.

    `on_batch` is called with the batch of each run once it is stored. Needs a running event loop.
    """
    app = SinkApp(
        member.group,
        broker=[f"tickwell://{server}" for server in kafka.servers.split(",")],
        broker_credentials=_credentials(kafka),
        store="memory://",
        web_enabled=False,
        TableManager=NoTables,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        stream_buffer_maxsize=BUFFERED_RUNS,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=member.instance,
        consumer_metadata_max_age_ms=5_000,
        broker_request_timeout=max(ANSWER_SECONDS, member.session + REBALANCE_SECONDS),
        broker_session_timeout=member.session,
        broker_rebalance_timeout=REBALANCE_SECONDS,
        broker_heartbeat_interval=HEARTBEAT_SECONDS,
        broker_max_poll_interval=TEN_YEARS,
        broker_commit_interval=1.0,
        worker_redirect_stdouts=False,
        tracer=None,
    )
    app.pipeline = pipeline
    app.incarnations, app.pace = pipeline.incarnations, pipeline.pace
    app.failed = asyncio.get_running_loop().create_future()
    app.rules = {rules.source.topic: rules for rules in pipeline.rules.values()}
    for rules in pipeline.rules.values():
        source = rules.source
        topic = app.topic(source.topic, key_serializer="raw", value_serializer="raw")
        work = pipeline.materializers[source.name]
        agent = SourceAgent(app, work, pipeline.stop, on_batch)
        app.agent(topic, name=f"pipelines.{source.name}", concurrency=1)(agent.consume)
    return app


def _credentials(kafka: KafkaConnection) -> Credentials | None:
    """What Faust makes aiokafka's arguments of. Raises as `KafkaConnection.ssl_context`."""
    context = kafka.ssl_context()
    if kafka.has_user:
        return SASLCredentials(
            username=kafka.username,
            password=kafka.password,
            mechanism=kafka.mechanism,
            ssl_context=context,
        )
    return None if context is None else SSLCredentials(context)
