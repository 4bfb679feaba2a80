"""Training sets that are kept by name, and proved again from what is kept."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.database.engine import connect
from registry.errors import DefinitionError, UnknownVersion
from registry.lifecycle import training_sets
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from registry.lifecycle.training_sets import Range
from serving.errors import TooLarge
from serving.history.digests import Digests
from serving.history.found_ticks import Asked
from serving.history.named import Keeper
from serving.history.ranges import Ranges
from serving.history.snapshot import snapshot
from serving.history.wanted import SetJoin, Wanted
from tests.support.backfills import backfill
from tests.support.past import asked, joining
from tests.support.rebuilds import Stores
from tests.support.sinks import query
from tests.support.training_sets import FEATURES, Made, making, run
from tickwell import Client
from tickwell.client.errors import ClientError

SMA_2 = "price_sma_5@2.0.0"


@pytest.fixture
def made(stores: Stores, hot_redis: str) -> Iterator[Made]:
    with making(stores, hot_redis) as found:
        yield found


def options(rows: Path, out: Path, *names: str) -> list[str | Path]:
    features = [part for name in names or FEATURES for part in ("-f", name)]
    return ["build", rows, *features, "--time-column", "at", "-o", out, "--overwrite"]


def test_a_set_is_kept_and_proved_again(made: Made, stores: Stores, tmp_path: Path) -> None:
    """Changed rows are told from changed values, and from history that was filled in."""
    registry = Registry(connect(stores.postgres, pool_size=1), By("ann"))
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 2)"}, "1.0.0"
    )
    rows, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
    pq.write_table(made.arrow(), rows)
    done = run(made, *options(rows, out, *FEATURES, SMA_2), "--name", "one")
    assert done.returncode == 0, done.stderr
    made.check(pq.read_table(out))
    again = run(made, *options(rows, out), "--name", "one")
    assert (again.returncode, "already" in again.stderr) == (1, True)
    proved = run(made, "verify", "one", "--json")
    assert proved.returncode == 0, proved.stderr
    same = dict.fromkeys([*FEATURES, SMA_2], True)
    assert json.loads(proved.stdout) == {"rows": 60, "same": True, "features": same}
    (kept,) = registry.training_sets()
    assert registry.training_set("one") == kept
    assert (kept.rows, kept.made["as_known_at"], kept.made["open"]) == (60, None, 0)
    assert {one.topic for one in kept.sources} == {"ticks.price", "ticks.position"}
    assert all(one.next_offset and one.closed_until > max(made.moments) for one in kept.sources)
    counts = [status for _, status, _ in made.expected["price_sma_5"]]
    assert kept.statuses["price_sma_5"] == {one: counts.count(one) for one in set(counts)}
    lineage = registry.lineage("current_price@1.0.0").downstream
    assert "one" in {edge.by.name for edge in lineage if edge.by.kind == "training set"}
    check_ranges(made, stores)
    engine = connect(stores.postgres)
    assert backfill(engine, stores.postgres, SMA_2).finished
    engine.dispose()
    filled = run(made, "verify", "one", "--json")
    assert filled.returncode == 1
    assert json.loads(filled.stdout)["features"] == {**same, SMA_2: False}
    assert "were" in filled.stderr
    stores.execute("UPDATE tickwell.training_sets SET rows = rows - 1")
    lost = run(made, "verify", "one")
    assert (lost.returncode, "not the rows" in lost.stderr) == (2, True)
    assert run(made, "verify", "two").returncode == 2
    assert "one" in run(made, "list").stdout
    assert json.loads(run(made, "show", "one").stdout)["built_by"]
    assert run(made, "delete", "one").returncode == 0
    with pytest.raises(UnknownVersion, match="one"):
        registry.training_set("one")
    assert query(stores.postgres, "SELECT 1 FROM tickwell.training_set_frames") == []
    assert query(stores.postgres, "SELECT 1 FROM tickwell.training_set_entities") == []
    lines = registry.audit("training-set:one")
    assert [line.action for line in lines] == ["delete training set", "save training set"]
    registry.engine.dispose()


def check_ranges(made: Made, stores: Stores) -> None:
    """Of each entity that a row names, and of each position of its portfolio."""
    expected: dict[tuple[str, str], list[int]] = {}
    members = [
        str(entity)
        for (entity,) in query(
            stores.postgres, "SELECT entity FROM tickwell.entities WHERE source = 'position'"
        )
    ]
    for symbol, portfolio, moment in zip(made.symbols, made.portfolios, made.moments, strict=True):
        expected.setdefault(("price", symbol), []).append(moment)
        for member in members:
            if member.startswith(f"{portfolio}\x1f"):
                expected.setdefault(("position", member), []).append(moment)
                expected.setdefault(("price", member.split("\x1f")[1]), []).append(moment)
    found = query(
        stores.postgres, "SELECT source, entity, first, last FROM tickwell.training_set_entities"
    )
    assert {(s, e): (low, high) for s, e, low, high in found} == {
        key: (min(moments), max(moments)) for key, moments in expected.items()
    }


def test_the_client_keeps_a_set(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKWELL_POSTGRES", made.postgres)
    with Client("http://127.0.0.1:9", deadline_seconds=60) as client:
        found = client.get_offline_features(
            FEATURES, made.arrow(), "at", versions="as_served", allow_open=True, name="served"
        )
        with pytest.raises(ClientError, match="already"):
            client.get_offline_features(FEATURES, made.arrow(), "at", name="served")
        with pytest.raises(ClientError, match="cannot be a name"):
            client.get_offline_features(FEATURES, made.arrow(), "at", name="a/b")
    assert set(found.column("price_sma_5__status").to_pylist()) == {"missing"}  # active since now
    assert run(made, "verify", "served").returncode == 0


def test_a_frame_that_is_too_large_is_refused(made: Made, stores: Stores) -> None:
    table = made.arrow()
    with snapshot(stores.postgres) as seen:
        join = SetJoin(seen, Wanted(FEATURES, "at"))
        join.check([table])
        with (
            Keeper(join, most_bytes=100),
            pytest.raises(TooLarge, match="training-set verify FILE"),
        ):
            join.added(table)
    few = Ranges(most=2)
    questions = asked([5, 7, 6], symbol=["B", "A", "B"])
    names, entity = questions.entities(["symbol"])
    few.add("price", Asked(names, entity, questions.moments, questions.moments))
    assert list(few.each()) == [Range("price", "A", 7, 7), Range("price", "B", 5, 6)]
    with pytest.raises(TooLarge, match="more than 2 entities"):
        few.add("volume", Asked(names, entity, questions.moments, questions.moments))


def test_a_digest_is_of_rows_and_not_of_pieces(made: Made, stores: Stores) -> None:
    """It is another one where a key, a moment, a bit or a status is."""
    chance = random.Random(11)

    def digests(symbols: list[str], moments: list[int], *cuts: int) -> dict[str, str]:
        found = Digests()
        with joining(stores.postgres, ["price_sma_5"]) as join:
            bounds = [0, *cuts, len(moments)]
            whole = pa.array(symbols)
            for begin, end in pairwise(bounds):
                rows = asked(moments[begin:end], symbol=whole[begin:end].to_pylist())
                found.add(rows, join.columns(rows))
        return found.hexadecimal()

    symbols, moments = made.symbols, made.moments
    one = digests(symbols, moments)
    assert set(one) == {"", "price_sma_5"}
    for _ in range(3):
        cuts = sorted(chance.sample(range(len(moments)), 3))
        assert digests(symbols, moments, *cuts) == one
    changes: list[Any] = [
        digests([*symbols[:-1], "AB"], moments),
        digests(symbols, [*moments[:-1], moments[-1] + 1]),
        digests(symbols[:-1], moments[:-1]),
    ]
    assert len({one[""], *(other[""] for other in changes)}) == 4
    halves = digests(["AB", "C"], [7, 7]), digests(["A", "BC"], [7, 7])
    assert halves[0][""] != halves[1][""]
    assert halves[0]["price_sma_5"] == halves[1]["price_sma_5"]


def test_what_cannot_be_a_name(stores: Stores) -> None:
    engine = connect(stores.postgres)
    with engine.begin() as connection:
        for name in ("", "-a", "a.parquet", "a b", "x" * 101):
            with pytest.raises(DefinitionError):
                training_sets.check_name(connection, name)
        training_sets.check_name(connection, "2026-11_momentum")
    engine.dispose()


def test_a_repair_finds_the_sets_that_have_its_ticks(made: Made, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
    pq.write_table(made.arrow(), rows)
    done = run(made, *options(rows, out, "price_sma_5"), "--name", "mine")
    assert done.returncode == 0, done.stderr
    symbol, moment = made.symbols[0], made.moments[0]
    engine = connect(made.postgres, pool_size=1)
    registry = Registry(engine, By("ann"))
    latest = max(at for one, at in zip(made.symbols, made.moments, strict=True) if one == symbol)
    assert registry.sets_with("price", {symbol: moment, "nobody else": 0}) == ["mine"]
    assert registry.sets_with("price", {symbol: latest}) == ["mine"]
    assert registry.sets_with("price", {symbol: latest + 1}) == []
    assert registry.sets_with("volume", {symbol: moment}) == []
    assert registry.sets_with("price", {}) == []
    engine.dispose()
