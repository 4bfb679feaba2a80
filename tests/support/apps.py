"""Faust apps without a broker, and tests that run in an event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import replace
from typing import Any, ParamSpec

from faust.types import TP

from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.run import Run
from pipelines.kafka.topic_identity import Incarnations
from pipelines.kafka.topics import Topic
from pipelines.live.faust_app import GroupMember, Pipeline, SinkApp, create_app
from registry.source_rules import SourceRules
from tests.support.logs import run_of_columns
from tests.support.shipped import RULES, SOURCE

P = ParamSpec("P")
TOPIC = Topic("ticks.price", bytes(16), 1)


class Unchanged(Incarnations):
    """Topics that nobody recreates; there is no broker to be asked."""

    def confirm(self) -> None:
        pass


def run(base: int, following: int) -> Run:
    """A run of one record at each offset from `base` up to `following`."""
    offsets = range(base, following)
    values = [b"{}"] * len(offsets)
    columns = run_of_columns(0, (base, following), offsets, offsets, values, values)
    return replace(columns, topic_id=TOPIC.topic_id)


def an_app(store: Any = None, rules: SourceRules = RULES, session: float = 6.0) -> SinkApp:
    """An app whose store resumes at offset 5; with `store` in place of a materializer an agent."""

    def watermarks(tps: Collection[TP]) -> Mapping[TP, int | None]:
        return dict.fromkeys(tps, 5)

    pipeline = Pipeline(
        {} if store is None else {SOURCE.name: store},
        {} if store is None else {SOURCE.name: rules},
        Unchanged(KafkaConnection("127.0.0.1:1"), {TOPIC.name: TOPIC}),
        watermarks,
    )
    app = create_app(
        GroupMember("group", "one", session),
        KafkaConnection("127.0.0.1:1"),
        pipeline,
        lambda batch: None,
    )
    app.rules = {TOPIC.name: rules}  # without a store there is no agent that brings them
    app.finalize()
    return app


def in_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The test, in an event loop of its own."""

    @functools.wraps(test)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return call


async def failure(app: SinkApp) -> BaseException:
    """What has ended the app's worker."""
    return await asyncio.wait_for(app.failed, 10)
