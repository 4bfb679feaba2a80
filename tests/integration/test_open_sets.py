"""Training sets that are open: what is stored later would change them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import httpx
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faust.types import TP

from pipelines.live.log_ends import LogEnds
from serving.errors import InvalidRequest, OpenTrainingSet
from serving.history.closing import NEVER, Closed, closed
from serving.history.files import made_of
from serving.history.snapshot import snapshot
from serving.history.wanted import SetJoin, Wanted
from tests.support.past import SYMBOLS, TOPIC_IDS, Cell, Market, asked, cells, joining
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds
from tests.support.sinks import query
from tests.support.training_sets import FEATURES, Made, in_json, making, rfc_3339, run
from tickwell import Client
from tickwell.client.errors import ProblemAnswer

OF_SYMBOLS = ["current_price", "price_sma_5"]
TOPICS = {"ticks.price", "ticks.position"}
MS = 10**6
SLOW_CLOCK_MS = 900


def closed_now(stores: Stores, topics: set[str]) -> Closed:
    with snapshot(stores.postgres) as seen:
        return closed(seen, topics)


def answers(stores: Stores, questions: Sequence[tuple[str, int]]) -> list[list[Cell]]:
    rows = asked([moment for _, moment in questions], symbol=[one for one, _ in questions])
    with joining(stores.postgres, OF_SYMBOLS) as join:
        return [cells(column) for column in join.columns(rows).values()]


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_what_is_closed_never_changes(stores: Stores, seed: int) -> None:
    """Though clocks go back a little, and ends are named of which not all is stored."""
    chance = random.Random(seed)
    market = Market(stores, chance, stores.catalog)
    told: list[tuple[list[tuple[str, int]], list[list[Cell]]]] = []
    newest = 0
    for _ in range(16):
        market.tick("price", chance.randrange(1, 5))
        newest = max(newest, market.at_ms)
        if chance.random() < 0.4:
            market.at_ms = newest + chance.choice([1, 3_000])
            newest = market.at_ms
            market.close(newest, chance.choice([0, 0, 7]))
        until = closed_now(stores, {"ticks.price"}).until
        assert until < newest * MS
        if until > 0:
            span = chance.choice([1, 1_000 * MS, 9_000 * MS])
            questions = [
                (chance.choice(SYMBOLS), until - 1 - chance.randrange(span)) for _ in range(9)
            ]
            told.append((questions, answers(stores, questions)))
        market.at_ms = newest + chance.choice([-SLOW_CLOCK_MS, 0, 1, 2_500])
    assert told
    for questions, found in told:
        assert answers(stores, questions) == found


def test_the_slowest_partition_decides(stores: Stores) -> None:
    market = Market(stores, random.Random(1), stores.catalog)
    assert closed_now(stores, TOPICS)[:2] == (NEVER, "ticks.position[0]")
    assert closed_now(stores, {*TOPICS, "ticks.volume"})[:2] == (NEVER, "ticks.volume")
    at = market.at_ms
    market.tick("position", 3)
    market.at_ms += 5_000
    market.tick("price", 3)
    second = 1_000 * MS
    assert closed_now(stores, TOPICS)[:2] == (at * MS - second, "ticks.position[0]")
    market.close(at + 60_000, unstored=1)
    assert closed_now(stores, TOPICS).until == at * MS - second
    market.close(at + 50_000)  # an older report takes nothing back
    assert closed_now(stores, TOPICS).until == at * MS - second
    market.tick("price", 1)
    market.tick("position", 1)
    assert closed_now(stores, TOPICS).until == (at + 60_000) * MS - second


def test_an_end_is_known_from_the_response_before_it(stores: Stores) -> None:
    """A response may have waited for a worker that was stopped, and its end be an old one."""
    tp = TP("ticks.price", 3)
    ends = LogEnds(stores.postgres, {"ticks.price": TOPIC_IDS["price"]})

    def told() -> list[tuple[int, int]]:
        ends.report()
        found = query(
            stores.postgres,
            "SELECT end_offset, reported_at / 10 ^ 9 FROM tickwell.log_ends WHERE partition = 3",
        )
        return [(int(end), int(at)) for end, at in found]

    ends.note({tp: (5, 10.0)})
    ends.note({tp: (5, 10.0)})
    assert told() == []
    ends.note({tp: (7, 3_600.0)})
    assert told() == [(7, 10)]
    ends.note({})  # another worker reads it for a while
    ends.note({tp: (9, 7_200.0)})
    assert told() == [(7, 10)]
    ends.note({tp: (9, 7_201.0)})
    assert told() == [(9, 7_200)]
    ends.close()


def table_of(moments: Sequence[int]) -> pa.Table:
    stamps = pa.array(moments, pa.int64()).cast(pa.timestamp("ns", "UTC"))
    return pa.table({"symbol": ["A"] * len(moments), "at": stamps})


def test_an_open_row_is_refused_and_named(stores: Stores) -> None:
    market = Market(stores, random.Random(1), stores.catalog)
    market.tick("price", 3)
    market.close(market.at_ms)
    until = closed_now(stores, {"ticks.price"}).until
    first = table_of([until - 1, until - 1])
    with snapshot(stores.postgres) as seen:

        def check(moments: Sequence[int], **more: object) -> SetJoin:
            join = SetJoin(seen, Wanted(OF_SYMBOLS, "at", **more))  # type: ignore[arg-type]
            join.check([first, table_of(moments)])
            return join

        assert check([until - 1]).report.open == 0
        with pytest.raises(OpenTrainingSet, match=r"2 rows are open, the first is row 3,") as told:
            check([until - 1, until, until + 10**9])
        assert rfc_3339(until) in told.value.detail
        assert "ticks.price[0]" in told.value.detail
        allowed = check([until, until - 1, until + 1], allow_open=True)
        assert (allowed.report.open, allowed.made().open) == (2, 2)
        assert allowed.made().closed_until == until
        assert check([until + 5], delay=6).report.open == 0
        assert check([until + 5], as_known_at=until - 1).report.open == 0
        with pytest.raises(OpenTrainingSet):
            check([until + 5], delay=5)
        with pytest.raises(OpenTrainingSet):
            check([until - 9], as_known_at=until)
        with pytest.raises(InvalidRequest, match="give one of them"):
            Wanted(OF_SYMBOLS, as_known_at=1, delay=1)


def open_rows(made: Made) -> Made:
    """The same rows, of which one asks about a moment long after all ticks."""
    return made._replace(moments=[*made.moments[:-1], max(made.moments) + 3_600 * 10**9])


def test_open_sets_by_every_way(stores: Stores, hot_redis: str, tmp_path: Path) -> None:
    with making(stores, hot_redis) as made:
        later, url = open_rows(made), f"{made.url}/features/offline"
        refused = httpx.post(url, json=in_json(later), timeout=60)
        assert refused.status_code == 409, refused.text
        assert "row 59" in refused.json()["detail"]
        taken = httpx.post(url, json=in_json(later, allow_open=True), timeout=60)
        assert taken.raise_for_status().json()["open"] == 1
        assert httpx.post(url, json=in_json(made), timeout=60).json()["open"] == 0
        with Client(made.url, deadline_seconds=60) as client:
            with pytest.raises(ProblemAnswer, match="allow_open"):
                client.get_offline_features(FEATURES, later.arrow(), "at")
            client.get_offline_features(FEATURES, later.arrow(), "at", allow_open=True)
        rows, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
        pq.write_table(later.arrow(), rows)
        options = "build", rows, "-f", "price_sma_5", "--time-column", "at", "-o", out
        refused_there = run(made, *options)
        assert refused_there.returncode == 1
        assert "--allow-open" in refused_there.stderr
        assert not out.exists()
        done = run(made, *options, "--allow-open")
        assert done.returncode == 0, done.stderr
        assert "open: 1 rows" in done.stderr
        told = made_of(pq.read_schema(out))
        assert told is not None
        assert told.open == 1
        assert run(made, "verify", out).returncode == 0


def test_a_delay_by_every_way(stores: Stores, hot_redis: str, tmp_path: Path) -> None:
    """Ticks count that were known so long before; what happened until the moment may."""
    with making(stores, hot_redis) as made:
        rows = asked(made.moments, symbol=made.symbols, portfolio=made.portfolios)
        with joining(stores.postgres, FEATURES) as join:
            columns = join.columns(rows, rows.moments - 1_500 * MS)
        expected = made._replace(expected={name: cells(one) for name, one in columns.items()})
        assert expected.expected != made.expected
        url = f"{made.url}/features/offline"
        found = httpx.post(url, json=in_json(made, delay="1500ms"), timeout=60).json()["features"]
        for name, column in found.items():
            assert column["statuses"] == [status for _, status, _ in expected.expected[name]]
        for text in ("-1s", "1 s", "366d"):
            wrong = httpx.post(url, json=in_json(made, delay=text), timeout=60)
            assert (wrong.status_code, "delay" in wrong.json()["detail"]) == (422, True)
        delays = "1500ms", timedelta(seconds=1.5)
        with Client(made.url, deadline_seconds=60) as client:
            for delay in delays:
                table = client.get_offline_features(FEATURES, made.arrow(), "at", delay=delay)
                expected.check(table)
            frame = pl.from_arrow(made.arrow())
            with pytest.raises(ProblemAnswer, match="delay"):
                client.get_offline_features(FEATURES, frame, "at", delay=timedelta(seconds=-1))
        rows_file, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
        pq.write_table(made.arrow(), rows_file)
        features = [part for name in FEATURES for part in ("-f", name)]
        options = "build", rows_file, *features, "--time-column", "at", "--delay", "1500ms"
        done = run(made, *options, "-o", out)
        assert done.returncode == 0, done.stderr
        expected.check(pq.read_table(out))
        assert run(made, "verify", out).returncode == 0
