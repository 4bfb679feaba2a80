"""What others store while rows are carried over."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import Engine

from pipelines.errors import PartitionHeld
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.postgres.row_copy import copy_rows
from pipelines.stores.redis import scripts
from pipelines.stores.redis.carried_rows import CarriedOnlineRows
from registry.database.engine import connect
from registry.formats.redis_keys import carried_key
from tests.support.carried import (
    HOMES,
    Kind,
    carried_rows,
    carry,
    opened_stores,
    replayed,
    rows_in_postgres,
    rows_in_redis,
    unfinished,
    values_of,
    worker,
)
from tests.support.followers import Follower, compute, with_means
from tests.support.logs import TOPIC_ID, runs
from tests.support.pipeline import wait_for
from tests.support.rebuilds import KEPT, TOPIC, Stores, quiet
from tests.support.sinks import query, ticks


@pytest.fixture
def kind() -> Kind:
    return "online"


@pytest.fixture
def stores(request: pytest.FixtureRequest, kind: Kind, postgres_database: str) -> Iterator[Stores]:
    with opened_stores(request, kind, postgres_database) as made:
        yield made


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("kind", ["online", "cluster"])
def test_a_tick_that_comes_meanwhile_wins(stores: Stores, engine: Engine, kind: Kind) -> None:
    """It is stored between the windows being loaded and the rows being written, of one of three."""
    first, second = runs([*ticks(["A", "B", "C"], 30), *ticks(["B"], 10, 30)], (30,))
    work = worker(stores, engine, kind)
    work.take(first, ahead=False)
    catalog = with_means(engine, 7)
    redis: Any = stores.redis()
    run, left = redis.run, [second]

    def meanwhile(script: str, *arguments: Any) -> Any:
        if script == scripts.CARRY_OVER and left:
            work.following.look()
            work.take(left.pop(), ahead=False)
        return run(script, *arguments)

    redis.run = meanwhile
    rows = CarriedOnlineRows(redis)
    assert sum(rows.carry(compute(catalog, "price"), [HOMES[0]])) == 2
    found = rows_in_redis(stores)
    assert {row.schema_id for row in found.values()} == {catalog.writing["price"]}
    assert {name: row.origin.offset for name, row in found.items()} == {"A": 27, "B": 39, "C": 29}
    expected = replayed(stores, engine, {0: [first, second]})
    for row in found.values():
        values = values_of(catalog, row.schema_id, row.values, row.status)
        assert values == expected[0, row.origin.offset][1]


@pytest.mark.parametrize("kind", ["online", "cluster"])
def test_a_newer_row_that_another_worker_has_written_meanwhile_stays(
    stores: Stores, engine: Engine, kind: Kind
) -> None:
    (run,) = runs(ticks(["A"], 30), ())
    worker(stores, engine, kind).take(run, ahead=False)
    before, after = with_means(engine, 7), with_means(engine, 7, 8)
    redis: Any = stores.redis()
    call, calls = redis.run, list[int]()

    def meanwhile(script: str, *arguments: Any) -> Any:
        if script == scripts.CARRY_OVER and not calls:
            calls.append(carry(stores, kind, after, 0))
        return call(script, *arguments)

    redis.run = meanwhile
    for _ in CarriedOnlineRows(redis).carry(compute(before, "price"), [HOMES[0]]):
        pass
    assert calls == [1]
    assert rows_in_redis(stores)["A"].schema_id == after.writing["price"]


@pytest.mark.parametrize("kind", ["online"])
def test_a_run_in_an_older_row_schema_is_refused_from_the_beginning(
    stores: Stores, engine: Engine, kind: Kind
) -> None:
    """The entity that it would make is seen by nobody who carries rows over."""
    first, second = runs(ticks(["A", "B"], 40), (20,))
    work = worker(stores, engine, kind)
    work.take(first, ahead=False)
    catalog = with_means(engine, 7)
    pieces = carried_rows(stores, kind).carry(compute(catalog, "price"), [HOMES[0]])
    next(pieces)
    work.take(second, ahead=False)
    assert work.work.schema.id == catalog.writing["price"]
    assert sum(pieces) == 0


@pytest.mark.parametrize("kind", ["offline"])
def test_a_run_that_had_begun_before_is_waited_for(
    stores: Stores, engine: Engine, kind: Kind
) -> None:
    """It is stored in the older row schema, with an entity that nobody has looked at yet."""
    first, second = runs([*ticks(["B"], 20), *ticks(["A"], 10, 20)], (20,))
    copying, go_on = Event(), Event()

    def copy(cursor: Any, rows: memoryview) -> None:
        if copying.is_set():
            go_on.wait(60)
        copy_rows(cursor, rows)

    work = Follower(engine, stores.keep(OfflineSink(stores.postgres, copy=copy)))
    work.take(first, ahead=False)
    copying.set()
    storing = Thread(target=work.take, args=(second, False))
    storing.start()
    held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
    wait_for("the run is being stored", lambda: query(stores.postgres, held))
    catalog = with_means(engine, 7)
    rows = carried_rows(stores, kind)

    def carry_on() -> None:
        while True:
            try:
                for _ in rows.carry(compute(catalog, "price"), [HOMES[0]]):
                    pass
            except PartitionHeld:  # the machine is slow
                continue
            return

    carrying = Thread(target=carry_on)
    carrying.start()
    carrying.join(0.5)
    go_on.set()
    for thread in (storing, carrying):
        thread.join(60)
    assert unfinished(stores, kind, catalog) == [1]
    newest = {row[0]: row[3] for row in rows_in_postgres(stores)}
    assert newest == dict.fromkeys("AB", catalog.writing["price"])


@pytest.mark.parametrize("how", ["emptied", "another", "restored"])
def test_it_is_not_finished_where_rows_may_have_changed(
    stores: Stores, engine: Engine, how: str
) -> None:
    """Redis was emptied, another process began, or entities were restored from Postgres."""
    (run,) = runs(ticks(["A", "B"], 40), ())
    for kind in ("online", "offline"):
        worker(stores, engine, kind).take(run, ahead=False)
    catalog = with_means(engine, 7)
    pieces = carried_rows(stores, "online").carry(compute(catalog, "price"), [HOMES[0]])
    next(pieces)
    match how:
        case "emptied":
            stores.flush()
        case "another":
            next(carried_rows(stores, "online").carry(compute(catalog, "price"), [HOMES[0]]))
        case _:
            stores.forget("A")
            stores.rebuild().refill(KEPT, TOPIC, quiet)
    for _ in pieces:
        pass
    assert 0 in unfinished(stores, "online", catalog)


def test_a_newer_note_stays(stores: Stores, engine: Engine) -> None:
    """A worker that has not seen a newer row schema does not say that the older one is the last."""
    before = with_means(engine, 7)
    after = with_means(engine, 7, 8)
    carry(stores, "online", after, 0)
    carry(stores, "online", before, 0)
    with stores.client() as client:
        assert int(client.get(carried_key(TOPIC_ID, 0))) == after.writing["price"]
