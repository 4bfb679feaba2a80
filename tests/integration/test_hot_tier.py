"""A server with a hot tier: its answers, what it counts, and how hot is filled at its start."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from starlette.testclient import TestClient

from registry.definitions import Catalog
from registry.formats.hot import row_key
from registry.formats.row import unpack
from serving.app import ServerOptions, create_app
from serving.stores.most_read_files import directory_of, most_read
from serving.stores.row_store import RowId
from serving.stores.warm import WarmStore
from serving.watch.catalog import CatalogWatch
from serving.watch.hot_tier import HotTier
from tests.support.hot_worker import HotWorker
from tests.support.pipeline import wait_for
from tests.support.served import beat, online, tick
from tests.support.stored import store_row, stored_row
from tickwell.commands.warm import warm
from tickwell.errors import TickwellError

SYMBOLS = [f"S{number}" for number in range(40)]


@pytest.fixture
def worker(recorded: Catalog, redis_database: str, hot_redis: str) -> Iterator[HotWorker]:
    """A worker that has stored a row of each symbol in two sources, and keeps hot up to date."""
    for source, field in (("price", "price"), ("volume", "volume")):
        ticks = [{"symbol": symbol, field: n + 1} for n, symbol in enumerate(SYMBOLS)]
        tick(redis_database, recorded, source, ticks)
    with redis.Redis.from_url(redis_database) as warm, redis.Redis.from_url(hot_redis) as hot:
        hot.flushall()
        origin = unpack(stored_row(warm, "price", "S0")).origin
        made = HotWorker(warm, hot, origin.partition, origin.topic_id)
        made.begin()
        yield made


@pytest.fixture
def environment(
    monkeypatch: pytest.MonkeyPatch,
    redis_database: str,
    hot_redis: str,
    postgres_database: str,
    tmp_path: Path,
) -> None:
    for name, value in [
        ("REDIS", redis_database),
        ("REDIS_HOT", hot_redis),
        ("POSTGRES", postgres_database),
        ("DATA", str(tmp_path)),
    ]:
        monkeypatch.setenv(f"TICKWELL_{name}", value)


def rows_in(url: str) -> set[str]:
    with redis.Redis.from_url(url) as client:
        return {key.decode() for key in client.scan_iter("th:row:*")}


def test_values_are_from_hot_once_they_were_asked_for(
    worker: HotWorker, client: TestClient, hot_redis: str
) -> None:
    first = online(client, "current_price", symbol="S3")
    assert (first["value"], first["tier"]) == (4.0, "warm")
    second = wait_for(
        "it is hot",
        lambda: (v := online(client, "current_price", symbol="S3"))["tier"] == "hot" and v,
    )
    assert {**second, "tier": "", "age_seconds": 0} == {**first, "tier": "", "age_seconds": 0}
    wait_for("so is its volume", lambda: row_key("volume", "S3") in rows_in(hot_redis))
    batch = {
        "features": ["current_price", "current_volume"],
        "entities": [{"symbol": symbol} for symbol in SYMBOLS],
    }

    def tiers() -> set[str]:
        answer = client.post("/features/batch", json=batch).json()["results"]
        assert [one["features"]["current_price"]["value"] for one in answer] == [
            number + 1 for number in range(len(SYMBOLS))
        ]
        return {value["tier"] for one in answer for value in one["features"].values()}

    wait_for("all are hot", lambda: tiers() == {"hot"})
    health = client.get("/health").json()["tiers"]
    assert health["hot"]["believed"]
    assert 0 < health["hot"]["hit_ratio"] < 1
    assert health["hot"]["rows_asked"] == health["all"]["rows_asked"]
    assert health["all"]["hit_ratio"] == 1
    lines = client.get("/metrics").text.splitlines()
    for tier in ("hot", "warm"):
        for what in ("asked", "found"):
            name = f'tickwell_tier_rows_{what}_total{{tier="{tier}"}}'
            assert f"{name} {float(health[tier][f'rows_{what}'])}" in lines
    assert "tickwell_hot_believed 1.0" in lines
    assert 'tickwell_hot_promotions_total{outcome="put"} 80.0' in lines
    worker.drop()
    wait_for("none is believed", lambda: tiers() == {"warm"})


@pytest.mark.parametrize("told", [{"hot": False}, {"redis_hot": ""}])
def test_a_server_that_is_told_not_to_reads_nothing_from_hot(
    worker: HotWorker,
    redis_database: str,
    hot_redis: str,
    postgres_database: str,
    told: dict[str, Any],
) -> None:
    beat(redis_database)
    urls = {"redis": redis_database, "redis_hot": hot_redis, "postgres": postgres_database}
    with TestClient(create_app(ServerOptions(**{**urls, **told}))) as client:
        for _ in range(3):
            assert online(client, "current_price", symbol="S3")["tier"] == "warm"
        assert client.get("/health").json()["tiers"] == {}
        assert "tickwell_tier_rows" not in client.get("/metrics").text
    assert rows_in(hot_redis) == set()


def test_what_is_read_most_is_kept_and_comes_in_at_the_next_start(
    worker: HotWorker, redis_database: str, hot_redis: str, postgres_database: str, tmp_path: Path
) -> None:
    directory = directory_of(tmp_path)

    async def serve(read: list[str], rows: int) -> None:
        catalog = CatalogWatch(postgres_database, redis_database)
        await catalog.refresh()
        warm = WarmStore(redis_database)
        tier = HotTier(hot_redis, warm, warm.named, catalog)
        async with tier.kept_warm(directory, save_seconds=0.05), asyncio.timeout(30):
            while len(rows_in(hot_redis)) < rows:
                await asyncio.sleep(0.01)
            names = [tier.store.name(RowId("price", (symbol,))) for symbol in read]
            kept: set[RowId] = set()
            while read and kept < {RowId("price", (symbol,)) for symbol in read}:
                await tier.store.named_rows([("price", names)])
                kept = {row for row, _ in most_read(directory)}
                await asyncio.sleep(0.005)
        await tier.store.close()
        await catalog.close()

    asyncio.run(serve(SYMBOLS[:10], 0))
    with redis.Redis.from_url(hot_redis) as hot:
        hot.flushall()
    worker.begin()
    asyncio.run(serve([], 20))
    assert rows_in(hot_redis) == {
        row_key(source, symbol) for symbol in SYMBOLS[:10] for source in ("price", "volume")
    }


def test_a_directory_that_cannot_be_written_to_stops_nothing(
    worker: HotWorker, redis_database: str, hot_redis: str, postgres_database: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    beat(redis_database)
    options = ServerOptions(
        redis_database, hot_redis, postgres_database, most_read=tmp_path / "file" / "most-read"
    )
    with TestClient(create_app(options)) as client:
        assert online(client, "current_price", symbol="S3")["value"] == 4.0


@pytest.mark.usefixtures("environment")
def test_warm_brings_in_what_is_named(
    worker: HotWorker,
    redis_database: str,
    hot_redis: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "symbols"
    file.write_text("S2\n\n S3\nnobody\n")
    with redis.Redis.from_url(redis_database) as damaged:
        store_row(damaged, "price", "nobody", b"\1")
    warm(["S1"], file=file)
    assert capsys.readouterr().out.endswith(
        "6 rows were put into hot, 0 were there already, 2 have no row\n"
    )
    assert rows_in(hot_redis) == {
        row_key(source, symbol) for symbol in ("S1", "S2", "S3") for source in ("price", "volume")
    }
    warm(["S1", "P1/S1"])
    assert (
        "0 rows were put into hot, 2 were there already, 1 have no row" in capsys.readouterr().out
    )
    with pytest.raises(TickwellError, match="no tick of these entities has come"):
        warm(["EUR/USD"], kind="symbol")
    assert "2 have no row" in capsys.readouterr().out


@pytest.mark.usefixtures("environment")
def test_warm_says_why_rows_stay_out(worker: HotWorker, tmp_path: Path) -> None:
    worker.drop()
    with pytest.raises(TickwellError, match="2 rows stay out: no online worker keeps hot up to"):
        warm(["S1"])
    with pytest.raises(TickwellError, match=r"no server has kept in .* what is read most"):
        warm()
    with pytest.raises(TickwellError, match="no source has entities of the kind isin; there are"):
        warm(["S1"], kind="isin")
    with pytest.raises(TickwellError, match="as many fields as a/b/c: name their kind"):
        warm(["a/b/c"])
    (tmp_path / "empty").write_text("\n \n")
    with pytest.raises(TickwellError, match="empty names no entity"):
        warm(file=tmp_path / "empty")
    (tmp_path / "latin").write_bytes(b"\xfc")
    with pytest.raises(TickwellError, match="latin does not hold UTF-8 text"):
        warm(file=tmp_path / "latin")
