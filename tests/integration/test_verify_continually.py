"""An offline worker verifies a little all the time, and what differs stays known."""

from __future__ import annotations

import random
import time
from threading import Event, Thread

import pytest

from pipelines.errors import StoreUnavailable
from pipelines.stores.postgres.connection import Database
from pipelines.verify.continual import Continual, VerifiedStores
from pipelines.verify.on_record import MOST_RECORDED, forget, on_record, record
from registry.comparisons import Difference, Kind, Place
from registry.definitions import Catalog
from registry.formats.heartbeat import VerifiedPlace
from tests.support.grown_market import grown
from tests.support.pipeline import wait_for
from tests.support.rebuilds import Stores
from tests.support.served import beat
from tests.support.sinks import query
from tickwell.verifying import described

COUNTED = {(p, s) for s in ("position", "price", "volume") for p in ("rows", "blocks", "redis")}


class Looks:
    """Looks one after the other, at two entities of a source each time."""

    def __init__(self, stores: Stores, catalog: Catalog) -> None:
        where = VerifiedStores(stores.postgres, stores.redis_url, "")
        self.work = Continual(where, 12, described, chance=random.Random(1))
        self.database = stores.keep(Database(stores.postgres, "test"))
        self._warm, self._catalog = stores.redis(), catalog
        self.work.begin(self.database, self.catalog)

    def catalog(self) -> Catalog:
        return self._catalog

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.work.look(self.database, self._warm, self.catalog) > 0

    def of(self, place: Place, source: str = "price") -> VerifiedPlace:
        return {(one.place, one.source): one for one in self.work.state.places}[place, source]

    @property
    def differences(self) -> int:
        return sum(one.differences for one in self.work.state.places)


def test_a_difference_is_told_once_and_stays_known(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    made = grown(stores, random.Random(3))
    looks = Looks(stores, made.catalog)
    assert {(one.place, one.source) for one in looks.work.state.places} == COUNTED
    looks.look(12)
    for place in (Place.ROWS, Place.BLOCKS, Place.REDIS):
        assert looks.of(place).values > 0
        assert looks.of(place).at is not None
    assert looks.differences == 0
    assert looks.work.state.different == ()
    (time_ns, sequence) = query(
        stores.postgres,
        "SELECT event_time, sequence FROM tickwell.feature_rows WHERE entity = 'C'"
        " ORDER BY event_time DESC, sequence DESC LIMIT 1",
    )[0]
    stores.execute(
        "UPDATE tickwell.feature_rows SET features[1] = 123.25 WHERE entity = 'C'"
        f" AND event_time = {time_ns} AND sequence = {sequence}"
    )
    looks.look(24)  # it is the last one, and so behind each moment that is drawn
    assert looks.of(Place.ROWS).differences == 1
    assert looks.of(Place.REDIS).differences == 1
    told = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert len(told) == 2
    of_rows = next(one for one in told if "rows: " in one)
    assert "value of current_price@1.0.0 of C in price" in of_rows
    assert "found 123.25 (0x1.ed00000000000p+6), ok" in of_rows
    assert "tickwell explain C current_price@1.0.0 --tick" in of_rows
    assert "tickwell verify --forget" in of_rows

    after_restart = Looks(stores, made.catalog)
    assert after_restart.of(Place.ROWS) == VerifiedPlace("rows", "price", 0, 0, 1)
    assert of_rows.endswith(tuple(after_restart.work.state.different))
    assert forget(looks.database) == 2
    looks.look(24)
    assert looks.differences == 2  # it is found again, as nobody has seen to it


def test_rounds_go_on_where_another_process_was(stores: Stores) -> None:
    for entity in "ABCD":
        stores.execute(
            "INSERT INTO tickwell.entities (source, entity, topic_id, partition)"
            " VALUES ('price', %s, gen_random_uuid(), 0)",
            entity,
        )
    seen = []
    for _ in range(4):
        looks = Looks(stores, stores.catalog)
        looks.look(3)  # one of each source
        ((to,),) = query(
            stores.postgres, "SELECT entity FROM tickwell.verified_to WHERE source = 'price'"
        )
        seen.append(to)
    assert seen == ["B", "D", "", "B"]


def test_nothing_is_looked_at_while_live_is_behind(stores: Stores) -> None:
    looks, stop = Looks(stores, stores.catalog), Event()
    looks.work.pause_seconds = 0.01
    beat(stores.redis_url, behind=60.0)
    thread = Thread(target=looks.work.run, args=(looks.catalog, stop))
    thread.start()
    try:
        time.sleep(0.5)
        assert looks.work.state.seconds == 0.0
        beat(stores.redis_url)
        wait_for("it looks", lambda: looks.work.state.seconds > 0.0)
    finally:
        stop.set()
        thread.join()


def test_a_store_that_is_away_is_no_difference(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    looks = Looks(stores, stores.catalog)

    def away() -> Catalog:
        raise StoreUnavailable("gone")

    for _ in range(3):
        assert looks.work.look(looks.database, stores.redis(), away) == 0.0
    warned = [one for one in caplog.records if one.levelname == "WARNING"]
    assert [one.getMessage() for one in warned] == ["nothing is verified: gone"]
    assert looks.differences == 0


def test_so_many_differences_are_kept_and_no_more(stores: Stores) -> None:
    database = stores.keep(Database(stores.postgres, "test"))
    same = Difference(Place.ROWS, Kind.VALUE, "price", ("A",), None, None, None, "1", "2")
    assert record(database, [same, same._replace(found="3")]) == [same]
    many = [same._replace(event_time=number, sequence=0) for number in range(MOST_RECORDED + 10)]
    assert len(record(database, many)) == MOST_RECORDED - 1
    known = on_record(database)
    assert known.counts == {("rows", "price"): MOST_RECORDED}
    assert known.first[0] == same
