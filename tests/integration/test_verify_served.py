"""Verification of the log of served values, by the origins of their rows."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from registry.comparisons import Kind, Place, Tally
from registry.formats.served_log import Served, bits_of, encode
from registry.formats.status import Status
from serving.app import ServerOptions, create_app
from serving.history.served_check import ServedCheck, lines_of
from serving.history.snapshot import snapshot
from tests.support.grown_market import Grown, grown
from tests.support.past import SYMBOLS
from tests.support.pipeline import wait_for
from tests.support.rebuilds import Stores
from tests.support.running_server import running
from tests.support.served import beating

OF_SYMBOLS = ["current_price", "price_sma_5", "price_volatility", "spread", "sizes"]
OF_PORTFOLIOS = ["portfolio_exposure", "portfolio_exposure_net"]
REQUESTS = 12


class Logged:
    """A market whose values were served at moments between its ticks, and the log of it."""

    def __init__(self, stores: Stores, made: Grown, directory: Path) -> None:
        self.stores = stores
        self.made = made
        self.directory = directory

    @property
    def lines(self) -> list[Served]:
        return [line for some in lines_of(self.directory, None, "", None) for line in some]

    def compared(self, lines: list[Served] | None = None) -> Tally:
        with snapshot(self.stores.postgres) as at_once:
            return ServedCheck(at_once).compare(self.lines if lines is None else lines)


@pytest.fixture
def logged(stores: Stores, hot_redis: str, tmp_path: Path) -> Logged:
    made, chance = grown(stores, random.Random(11)), random.Random(12)
    now = made.market.at_ms = made.market.newest_ms = time.time_ns() // 10**6 - 600_000
    urls = stores.redis_url, hot_redis, stores.postgres
    options = ServerOptions(*urls, served_log=tmp_path / "served", served_log_every=1)
    entities = [{"symbol": one} for one in [*SYMBOLS, "none"]] + [{"portfolio": "P"}]
    with beating(stores.redis_url), running(create_app(options)) as url:
        with httpx.Client(base_url=url) as client:
            for _ in range(REQUESTS):
                made.market.tick(chance.choice(["price", "position"]), 5)
                now = made.market.at_ms = now + 47_000
                body = {"features": OF_SYMBOLS + OF_PORTFOLIOS, "entities": entities}
                assert client.post("/features/batch", json=body).status_code == 200
        found = Logged(stores, made, tmp_path / "served")
        wait_for("all is logged", lambda: len(found.lines) == REQUESTS)
    return found


def test_what_was_served_is_what_the_rows_say(logged: Logged) -> None:
    found = logged.compared()
    assert found.differences.total() == 0, found.first
    assert found.values == sum(len(line.values) for line in logged.lines)
    statuses = {value.status for line in logged.lines for value in line.values}
    assert statuses >= {Status.OK, Status.MISSING, Status.WARMING, Status.STALE}


def changed(lines: list[Served], which: Any, **changes: Any) -> tuple[list[Served], Any]:
    """The lines, one value of which is another one; and that value."""
    for number, line in enumerate(lines):
        for place, value in enumerate(line.values):
            if which(value):
                other = structs.replace(value, **changes)
                values = (*line.values[:place], other, *line.values[place + 1 :])
                line = structs.replace(line, values=values)
                return [*lines[:number], line, *lines[number + 1 :]], value
    raise AssertionError("no line has such a value")


@pytest.mark.parametrize("feature", ["price_sma_5", "spread", "portfolio_exposure"])
def test_a_value_that_was_served_otherwise_is_named(logged: Logged, feature: str) -> None:
    def is_one(value: Any) -> bool:
        return str(value.feature).startswith(f"{feature}@") and value.bits is not None

    lines, value = changed(logged.lines, is_one, bits=bits_of(0.3))
    (found,) = logged.compared(lines).first
    assert (found.place, found.kind, found.feature) == (Place.SERVED, Kind.VALUE, value.feature)
    assert found.entity == tuple(value.entity.values())
    assert found.found.startswith("0.3 (0x1.3333333333333p-2), ")
    lines, value = changed(logged.lines, is_one, status=Status.LAGGING)
    (found,) = logged.compared(lines).first
    assert (found.kind, found.feature) == (Kind.STATUS, value.feature)


def test_a_status_is_judged_for_the_moment_of_its_answer(logged: Logged) -> None:
    line = logged.lines[-1]
    assert logged.compared([line]).differences.total() == 0
    earlier = structs.replace(line, moment=line.moment - 10**12)
    assert (Kind.STATUS, "current_price@1.0.0") in {
        (one.kind, one.feature) for one in logged.compared([earlier]).first
    }
    rows = tuple(structs.replace(row, lagging=True) for row in line.rows)
    assert Kind.STATUS in logged.compared([structs.replace(line, rows=rows)]).differences


def test_a_row_that_was_stored_otherwise_is_named(logged: Logged) -> None:
    row = next(row for row in logged.lines[-1].rows if row.origin is not None)
    assert row.origin is not None
    logged.stores.execute(
        "UPDATE tickwell.feature_rows SET features[1] = 6.5"
        f' WHERE "offset" = {row.origin.offset} AND partition = {row.origin.partition}'
        f" AND topic_id = '{row.origin.topic_id.hex()}'"
    )
    assert logged.compared([logged.lines[-1]]).differences[Kind.VALUE] >= 1


def test_what_postgres_has_not_or_no_more_is_no_difference(logged: Logged) -> None:
    lines, stores = logged.lines, logged.stores
    stores.execute("UPDATE tickwell.watermarks SET next_offset = 0")
    stores.execute("DELETE FROM tickwell.feature_rows WHERE event_time > 1750000000000000000")
    found = logged.compared(lines)
    assert found.differences.total() == 0, found.first
    assert found.not_yet_stored > 0
    stores.execute("UPDATE tickwell.watermarks SET next_offset = 100000")
    lost = logged.compared(lines)
    assert {one.kind for one in lost.first} == {Kind.ABSENT}
    stores.execute("TRUNCATE tickwell.feature_rows")
    gone = logged.compared(lines)
    assert gone.differences.total() == 0
    assert gone.unverifiable > 0


def test_lines_are_drawn_by_a_seed(tmp_path: Path) -> None:
    lines = [Served(moment, None, (), (), 0) for moment in range(1_000)]
    (tmp_path / "1.jsonl").write_bytes(b"\n".join(map(encode, lines)))

    def drawn(number: int | None, seed: str, since: int | None = None) -> list[int]:
        return [one.moment for some in lines_of(tmp_path, number, seed, since) for one in some]

    assert drawn(None, "") == list(range(1_000))
    assert drawn(None, "", 990) == list(range(990, 1_000))
    assert drawn(7, "a") == drawn(7, "a")
    assert len(set(drawn(300, "a"))) == 300
    assert drawn(7, "a") != drawn(7, "b")
