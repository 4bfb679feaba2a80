"""A schema registry that does not answer is waited for, and told; no tick is rejected for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from threading import Event, Thread

import msgspec
import pytest
from fastavro import schemaless_writer

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates
from pipelines.compute.run_computation import RunComputation
from pipelines.errors import Stopped
from pipelines.kafka.run import Run
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.stores.sink import Store
from pipelines.ticks.wire.formats import registry_of
from pipelines.ticks.wire.schema_registry import RegistryConnection
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.source_rules import SourceRules
from tests.support.logs import NOW_MS, run_of_columns
from tests.support.pipeline import wait_for
from tests.support.registry_server import RegistryServer
from tests.support.shipped import PROGRAM, SCHEMA, SOURCE
from tests.support.states import known

pytestmark = pytest.mark.timeout(60)
TRADE = {
    "type": "record",
    "name": "Trade",
    "fields": [
        {"name": "symbol", "type": "string"},
        {"name": "price", "type": "double"},
        {"name": "ts", "type": "long"},
    ],
}


class KeptBatches:
    """A store that keeps what it is given, and knows no state."""

    name, pace, keeps_states = "kept", 0.0, False

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def watermarks(self, topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        return {}

    def settle(self, topic: Topic) -> int:
        return topic.partitions

    def begin(self, topic_id: bytes, partition: int) -> bool:
        return False

    def load(
        self, source: Source, entities: EntityNames, depth: int, before: Origin
    ) -> LoadedStates:
        return known([], {}, len(source.fields))

    def prepare(self, batch: Batch) -> Store:
        return partial(self.store, batch)

    def store(self, batch: Batch) -> Sequence[str]:
        self.batches.append(batch)
        return ()

    def close(self) -> None:
        pass


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    server = RegistryServer()
    yield server
    server.stop()


def message(number: int, price: float) -> bytes:
    stream = BytesIO()
    schemaless_writer(stream, TRADE, {"symbol": "A", "price": price, "ts": NOW_MS})
    return b"\0" + number.to_bytes(4, "big") + stream.getvalue()


def run_at(offset: int, *values: bytes) -> Run:
    offsets = range(offset, offset + len(values))
    bounds = (offset, offset + len(values))
    return run_of_columns(0, bounds, offsets, [NOW_MS] * len(values), [b"A"] * len(values), values)


def materializer(server: RegistryServer, sink: KeptBatches) -> Materializer:
    source = msgspec.structs.replace(SOURCE, format="avro")
    registry = registry_of([source], RegistryConnection(server.url))
    rules = SourceRules.always(source)
    return Materializer(RunComputation(rules, SCHEMA, PROGRAM, 1000, registry=registry), sink)


def test_a_registry_that_is_away_stalls_and_is_named(server: RegistryServer) -> None:
    first, second = server.register(TRADE), server.register(TRADE)
    sink, stop = KeptBatches(), Event()
    work = materializer(server, sink)
    assert work.materialize(run_at(0, message(first, 1.0)), stop) is not None
    server.stop()
    known = run_at(1, message(first, 2.0), message(first, 3.0))
    assert work.materialize(known, stop) is not None  # nothing is asked of it
    assert work.retrying is None
    unknown = run_at(3, message(second, 4.0), b"{}", message(first, 5.0))
    thread = Thread(target=work.materialize, args=[unknown, stop])
    thread.start()
    said = wait_for("it says what it waits for", lambda: work.retrying)
    assert said.startswith(f"the schema registry at {server.url}: ConnectError")
    assert len(sink.batches) == 2
    server.start()
    thread.join(30)
    assert work.retrying is None
    assert [batch.fields[:, 0].tolist() for batch in sink.batches] == [
        [1.0], [2.0, 3.0], [4.0, 5.0],
    ]  # fmt: skip
    assert [len(batch.rejected) for batch in sink.batches] == [0, 0, 1]


def test_no_run_waits_for_it_ahead_of_its_turn(server: RegistryServer) -> None:
    """The run before may have to be stored again meanwhile, by the same thread."""
    first, second = server.register(TRADE), server.register(TRADE)
    sink, stop = KeptBatches(), Event()
    work = materializer(server, sink)
    work.materialize(run_at(0, message(first, 1.0)), stop)
    server.stop()
    run = run_at(1, message(second, 2.0))
    assert work.compute_ahead(run) is None
    server.start()
    ahead = work.compute_ahead(run)
    assert ahead is not None
    assert work.store(ahead) is ahead.batch


def test_a_worker_that_waits_for_it_can_be_stopped(server: RegistryServer) -> None:
    server.failure = 503, {"error_code": 50301, "message": "starting"}
    sink, stop, ended = KeptBatches(), Event(), Event()
    work = materializer(server, sink)

    def materialize() -> None:
        with pytest.raises(Stopped, match="while the schema registry was unavailable"):
            work.materialize(run_at(0, message(1, 1.0)), stop)
        ended.set()

    Thread(target=materialize, daemon=True).start()
    said = wait_for("it says what it waits for", lambda: work.retrying)
    assert "answers 503: starting" in said
    stop.set()
    assert ended.wait(30)
    assert sink.batches == []
