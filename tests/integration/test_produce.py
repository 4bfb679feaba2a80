"""The command `produce`: what it sends, what it refuses to send, and what became of the ticks."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from confluent_kafka.admin import AdminClient

from pipelines.errors import StoreUnavailable
from pipelines.produce.confirming import NoProgress, OfflineStore, OnlineStore, wait_stored
from pipelines.stores.postgres.connection import Database
from pipelines.stores.redis.connection import WarmRedis
from tests.support.pipeline import Pipeline, pipeline, wait_for
from tests.support.tick_files import TS, csv_of, parquet_of
from tickwell.cli import app, message_for
from tickwell.signals import STOPPING

pytestmark = pytest.mark.timeout(240)


class Ended(NamedTuple):
    """How a command ended, and what it printed, in one line."""

    code: int
    output: str


@pytest.fixture
def running(
    tmp_path: Path, kafka: str, redis_database: str, hot_redis: str, postgres_database: str
) -> Iterator[Pipeline]:
    """Topics and stores; no workers."""
    with pipeline(tmp_path, kafka, redis_database, hot_redis, postgres_database) as made:
        yield made


@pytest.fixture
def at_work(running: Pipeline) -> Pipeline:
    """The same with both workers."""
    for sink in ("online", "offline"):
        running.start_worker(sink)
    return running


def produce(running: Pipeline, file: Path, *arguments: str, source: str = "price") -> Ended:
    """Run the command in this process: most of the time of another one is its imports."""
    printed, handlers = io.StringIO(), {number: signal.getsignal(number) for number in STOPPING}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(printed):
        for name, value in {**running.environment(), "COLUMNS": "200"}.items():
            patch.setenv(name, value)
        try:
            app(["produce", str(file), "--source", source, *arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        except Exception as error:
            shown = message_for(error)
            assert shown is not None, traceback.format_exc()
            code = 1
            printed.write(shown)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Ended(code, " ".join(printed.getvalue().split()))


def in_topic(running: Pipeline, source: str = "price") -> list[dict[str, object]]:
    """The ticks of a topic; a message holds one, or several of one key."""
    found: list[dict[str, object]] = []
    for record in running.records(running.topic(source)):
        message = json.loads(record.value or b"")
        found += message if isinstance(message, list) else [message]
    return found


def test_what_is_sent_is_accepted_in_its_order(at_work: Pipeline, tmp_path: Path) -> None:
    table = pa.table(
        {
            "ticker": [f"S{i % 5}" for i in range(500)],
            "close": [0.1 * i + 1e-9 for i in range(500)],
            "at": [TS + i for i in range(500)],
        }
    )
    pyarrow.csv.write_csv(table, tmp_path / "t.csv")
    maps = ("--map", "symbol=ticker", "--map", "price=close", "--map", "ts=at")
    ended = produce(at_work, tmp_path / "t.csv", *maps)
    assert ended.code == 0, ended.output
    assert f"500 ticks are in {at_work.topic('price')} " in ended.output
    assert ended.output.endswith("500 accepted, 0 rejected")
    rows = at_work.query("SELECT entity, fields[1] FROM tickwell.feature_rows ORDER BY event_time")
    assert rows == list(zip(table["ticker"].to_pylist(), table["close"].to_pylist(), strict=True))

    # once more: all of it is older than what live has, but for the last second of each symbol
    older = csv_of(tmp_path, "symbol,price,ts", *(f"S1,1,{TS - 5000 + i}" for i in range(3)))
    ended = produce(at_work, older)
    assert ended.code == 1
    assert "3 rows of 3 are older than what live has of their symbols" in ended.output
    assert "row 1, 5.496 s older. Nothing was sent. --allow-late sends them" in ended.output
    ended = produce(at_work, older, "--allow-late")
    assert ended.code == 3
    assert "0 accepted, 3 rejected: 3 late" in ended.output
    assert len(in_topic(at_work)) == 503


def test_rejections_are_told_of_what_was_sent_and_nothing_else(
    at_work: Pipeline, tmp_path: Path
) -> None:
    header, rows = "symbol,price,ts,seq", [f"A,{i},{TS + i},{i}" for i in range(5)]
    assert produce(at_work, csv_of(tmp_path, header, *rows)).code == 0
    at_work.produce("price", [(b"A", b"{")])
    again = csv_of(tmp_path, header, *rows[2:], f"B,1,{TS},1")
    ended = produce(at_work, again)
    assert ended.code == 3
    assert "4 ticks are in" in ended.output
    assert "1 accepted, 3 rejected: 3 duplicate" in ended.output


def test_nobody_takes_the_ticks(running: Pipeline, tmp_path: Path) -> None:
    running.start_worker("offline")
    ended = produce(running, csv_of(tmp_path, "symbol,price,ts", f"A,1,{TS}"), "--patience", "3")
    assert ended.code == 4
    assert "1 tick is in" in ended.output
    assert "no progress for 3 s: Redis lacks 1 offsets (is an online worker running?)" in (
        ended.output
    )
    assert "The ticks are in the topic" in ended.output


def test_a_store_that_does_not_answer_is_named_after_the_wait(running: Pipeline) -> None:
    topic = running.topics[running.topic("price")]
    away = Database("postgresql://nobody@127.0.0.1:1/none", "test")
    redis = WarmRedis(running.settings.redis)
    stores = [OnlineStore(redis), OfflineStore(away)]
    with pytest.raises(NoProgress) as stuck:
        wait_stored(stores, topic, {0: 1}, lambda _: None, Event(), 0.2)
    assert [one.store for one in stuck.value.waiting] == ["Redis", "Postgres"]
    assert "Postgres: " in stuck.value.waiting[1].error
    with pytest.raises(StoreUnavailable):
        OfflineStore(away).watermarks(topic)
    redis.close()


def test_nothing_is_sent_if_any_row_is_bad(running: Pipeline, tmp_path: Path) -> None:
    good = [f"S{i % 5},{i},{TS + i}" for i in range(60_000)]
    file = csv_of(tmp_path, "symbol,price,ts", *good, f"A,,{TS}", *good[:5])
    ended = produce(running, file)
    assert ended.code == 1
    assert "row 60001, column price: is empty, and a tick needs its price" in ended.output
    assert "nothing was sent. --reject FILE" in ended.output
    assert in_topic(running) == []

    rejects = tmp_path / "rejects.csv"
    ended = produce(running, file, "--reject", str(rejects), "--allow-late", "--no-confirm")
    assert ended.code == 0
    assert "60005 ticks are in" in ended.output
    assert "1 bad ones written to the file of --reject" in ended.output
    assert len(rejects.read_text().splitlines()) == 2
    ended = produce(running, file, "--skip-empty", "--allow-late", "--no-confirm", "--limit", "9")
    assert "9 ticks are in" in ended.output
    assert len(in_topic(running)) == 60_014


def test_a_sort_is_of_time_and_keeps_the_order_of_one_time(
    running: Pipeline, tmp_path: Path
) -> None:
    rows = 100_000
    random = np.random.default_rng(7)
    symbols = [f"S{number}" for number in random.integers(0, 20, rows)]
    times = (TS + random.integers(0, 10_000, rows)).tolist()
    file = parquet_of(tmp_path, symbol=symbols, price=np.arange(rows, dtype=float), ts=times)
    ended = produce(running, file, "--no-confirm")
    assert ended.code == 1
    assert "--sort sends the rows in the order of their times" in ended.output
    assert produce(running, file, "--sort", "--no-confirm").code == 0
    by_symbol: dict[object, list[tuple[int, float]]] = {}
    for price, (symbol, ts) in enumerate(zip(symbols, times, strict=True)):
        by_symbol.setdefault(symbol, []).append((ts, float(price)))
    found: dict[object, list[tuple[int, float]]] = {}
    for tick in in_topic(running):
        found.setdefault(tick["symbol"], []).append((tick["ts"], tick["price"]))  # type: ignore[arg-type]
    assert found == {symbol: sorted(ticks) for symbol, ticks in by_symbol.items()}
    assert not list(Path("/tmp").glob("tickwell-sort-*"))


def test_a_rate_and_the_time_of_sending(running: Pipeline, tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol,price", *(f"A,{i}" for i in range(100)))
    before = time.time_ns() // 10**6
    now = ("--as-if-now", "--rate", "20", "--limit", "5", "--no-confirm")
    ended = produce(running, file, *now)
    assert "5 ticks are in" in ended.output
    times = [int(str(tick["ts"])) for tick in in_topic(running)]
    assert len(times) == 5
    assert all(time >= before + 50 * place for place, time in enumerate(times))


def test_a_signal_ends_it_and_what_was_sent_is_delivered(running: Pipeline, tmp_path: Path) -> None:
    def delivered() -> int:
        return sum(running.ends().values())

    file = csv_of(tmp_path, "symbol,price,ts", *(f"A,{i},{TS + i}" for i in range(70_000)))
    for number in (signal.SIGINT, signal.SIGTERM):
        before = delivered()
        name = f"stopped-{number}"
        arguments = (str(file), "--source", "price", "--rate", "300", "--no-confirm")
        sending = running.start(name, "produce", *arguments)
        wait_for("it sends", lambda now=before: delivered() > now)
        sending.send_signal(number)
        assert sending.wait(30) == 130
        output = (tmp_path / f"{name}.log").read_text()
        assert f"stopped: {delivered() - before} ticks are in" in output
        assert "Traceback" not in output


def test_what_it_needs_is_said_before_anything_is_read(running: Pipeline, tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol,volume,ts", f"A,1,{TS}")
    for arguments, what in (
        (("--ts-unit", "days"), "--ts-unit days: there are s, ms, us, ns, yyyymmdd"),
        (("--delimiter", "ab"), "--delimiter ab: it is one character, or tab"),
        (("--map", "price"), "--map price: write it as price=close"),
        (("--set", "symbol=A", "--set", "symbol=B"), "symbol is given already, as A"),
        (("--scale", "volume=x"), "--scale volume=x: 'x' is not a number"),
        (("--scale", "volume=-1"), "a scale is a number above zero"),
        (("--sort", "--as-if-now"), "with --as-if-now rows have no times to sort by"),
    ):
        ended = produce(running, file, *arguments, source="volume")
        assert (ended.code, what in ended.output) == (1, True), ended.output
    # a source that wants positive numbers gets no others
    ended = produce(running, csv_of(tmp_path, "symbol,volume,ts", f"A,-1,{TS}"), source="volume")
    assert "row 1, column volume: volume is -1.0 (not-positive)" in ended.output
    topic = running.topic("volume")
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    admin.delete_topics([topic])[topic].result()
    ended = produce(running, file, source="volume")
    assert re.search(r"has no topic .*: run `tickwell migrate`", ended.output)


def test_ticks_go_where_the_partitioner_of_their_source_says(
    running: Pipeline, tmp_path: Path
) -> None:
    topic = f'topic = "{running.topic("price")}"'
    declare(running, topic, f'{topic}\npartitioner = "crc32"')
    names = [f"S{number}" for number in range(30)]
    file = csv_of(tmp_path, "symbol,price,ts", *(f"{name},1,{TS}" for name in names))
    assert produce(running, file, "--no-confirm").code == 0
    found = {record.key: record.partition for record in running.records(running.topic("price"))}
    assert found == {name.encode(): zlib.crc32(name.encode()) % 4 for name in names}


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ('map = { price = "data.p" }', "messages have a shape of their own"),
        ('format = "avro"', 'written with a schema registry (format "avro")'),
    ],
)
def test_a_source_with_a_shape_of_its_own_is_refused(
    running: Pipeline, tmp_path: Path, declared: str, said: str
) -> None:
    topic = f'topic = "{running.topic("price")}"'
    declare(running, topic, f"{topic}\n{declared}")
    ended = produce(running, csv_of(tmp_path, "symbol,price,ts", f"A,1,{TS}"))
    assert (ended.code, said in ended.output) == (1, True)


def test_rules_that_are_not_recorded_are_refused_before_anything_is_sent(
    running: Pipeline, tmp_path: Path
) -> None:
    """The workers would judge the rows by others."""
    topic = f'topic = "{running.topic("price")}"'
    declare(running, topic, f"{topic}\npositive = true")
    ended = produce(running, csv_of(tmp_path, "symbol,price,ts", f"A,1,{TS}"))
    assert ended.code == 1
    assert "positive `false` would become `true`" in ended.output
    assert in_topic(running) == []


def declare(running: Pipeline, old: str, new: str) -> None:
    """Change the features file of a pipeline."""
    features = Path(running.settings.features)
    text = features.read_text()
    assert text.count(old) == 1
    features.write_text(text.replace(old, new))


PEAK_OF_READING = """
import re, sys
from pathlib import Path
from threading import Event
from pipelines.produce.checking import CheckOptions, TickFiles, check, sendable
from pipelines.produce.memory import keep_little
from pipelines.produce.options import FileOptions
from pipelines.produce.order import Order
from pipelines.produce.sending import at_once
from registry.features_file import read
keep_little()
def peak():  # ru_maxrss would count the parent that forked us
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
# What libraries take depends on how much of their files the system maps at once.
imported = peak()
price = read().sources[0]
files = TickFiles([Path(sys.argv[1])], price, FileOptions())
found = check(files, CheckOptions(Order(price.skew_ns, None)), lambda _: None, Event())
assert sum(batch.ticks for batch in at_once(sendable(files, found))) == int(sys.argv[2])
print(peak() - imported)
"""


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_memory_does_not_grow_with_a_file(tmp_path: Path, kind: str) -> None:
    """Nor with the row group of a Parquet file, which is the whole file."""
    peaks = []
    for rows in (300_000, 1_500_000):
        numbers = np.random.default_rng(7).standard_normal(rows)
        symbols = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), ["A"])
        file = parquet_of(tmp_path, symbol=symbols, price=numbers, ts=TS + np.arange(rows))
        if kind == "csv":
            table = pyarrow.parquet.read_table(file)
            file = tmp_path / "t.csv"
            pyarrow.csv.write_csv(table.set_column(0, "symbol", symbols.dictionary_decode()), file)
        output = subprocess.run(
            [sys.executable, "-c", PEAK_OF_READING, str(file), str(rows)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(output.stdout))
    assert peaks[1] < peaks[0] + 20, f"{peaks} MiB"
    assert peaks[1] < 60
