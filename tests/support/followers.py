"""Workers of the price source that follow the registry, and features that are recorded for them."""

from __future__ import annotations

from functools import partial

import msgspec
from sqlalchemy import Engine

from pipelines.compute.batch import Batch
from pipelines.compute.run_computation import RunComputation
from pipelines.kafka.run import Run
from pipelines.live.following import Following
from pipelines.live.materializer import Materializer
from pipelines.stores.sink import Sink
from registry import catalog as recorded
from registry.definitions import HISTORY, Catalog, FeatureVersion
from registry.features_file import read
from registry.language.program import compile_program
from registry.lifecycle.recording import record
from registry.serial import serial
from tests.support.shipped import RULES
from tests.support.sinks import GO_ON


def mean_of(window: int) -> FeatureVersion:
    return FeatureVersion(
        f"mean_{window}", "1.0.0", ("symbol",), f"mean(price, {window})", source="price"
    )


def with_means(engine: Engine, *windows: int, history: int = HISTORY) -> Catalog:
    """What is recorded once there are such features as well; prices have this history."""
    definitions, replace = read(), msgspec.structs.replace
    more = (*definitions.features, *map(mean_of, windows))
    sources = tuple(
        replace(source, history=history) if source.name == "price" else source
        for source in definitions.sources
    )
    return record(engine, replace(definitions, features=more, sources=sources), "test")


def compute(catalog: Catalog, source: str) -> RunComputation:
    schema = catalog.schemas[catalog.writing[source]]
    return RunComputation(RULES, schema, compile_program(catalog, schema), 1000)


class Follower:
    """A worker with one sink that follows the registry whenever it is told to look."""

    def __init__(self, engine: Engine, sink: Sink) -> None:
        load = partial(recorded.load, engine)
        self.following = Following(partial(serial, engine), load, compute)
        computation = compute(load(), "price")
        newer = partial(self.following.newer, "price")
        self.work = Materializer(computation, sink, newer=newer)
        self.following.materializers = {"price": self.work}

    def take(self, run: Run, ahead: bool) -> Batch | None:
        """Bring in a run, in the way of a large one where it is computed `ahead`."""
        computed = self.work.compute_ahead(run) if ahead else None
        batch = None if computed is None else self.work.store(computed)
        return self.work.materialize_again(run, GO_ON) if batch is None else batch
