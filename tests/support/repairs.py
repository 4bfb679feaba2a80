"""Prices with late ticks, cancels and corrections, and what history is after repairs."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from threading import Event
from typing import Any, NamedTuple

from pipelines.compute.run_computation import RunComputation
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.repair.rejected_edits import Chosen
from pipelines.repair.repair import Repair, Repaired, settle_all
from pipelines.stores.postgres.offline_sink import OfflineSink
from registry.catalog import load
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.language.program import compile_program
from registry.source_rules import SourceRules
from tests.oracle.features import Feature, evaluate
from tests.oracle.messages import Record
from tests.support.logs import NOW_MS, TOPIC_ID, runs
from tests.support.past import Cell, asked, cells, joining
from tests.support.rebuilds import Stores
from tests.support.sinks import GO_ON, query

SYMBOLS = ["A", "B", "C"]
FEATURES = {
    "current_price": Feature("current_price", "last", 0, 1),
    "price_sma_5": Feature("price_sma_5", "mean", 0, 5),
    "price_volatility": Feature("price_volatility", "volatility", 0, 20),
}
SKEW_MS = 1_000
NEVER = Event()
MISSING: Cell = (None, "missing", None)
Key = tuple[int, int]


class Listed(NamedTuple):
    """A tick of the list that a test edits."""

    tick_time: int
    seq: int
    op: int
    fields: tuple[float, ...]


class Feed:
    """Sends prices with a `seq`, some of them late, and now and then a cancel or a correction."""

    def __init__(self, stores: Stores, chance: random.Random) -> None:
        self.stores = stores
        self.postgres = stores.postgres
        self.sent: list[dict[str, Any]] = []
        self.at_ms = NOW_MS
        self._chance = chance
        self._offset = 0
        self._trades: list[dict[str, Any]] = []
        self.work_by(stores.catalog)

    def work_by(self, catalog: Catalog) -> None:
        """The worker writes the row schema of a catalog from now on."""
        sink = self.stores.keep(OfflineSink(self.postgres))
        sink.settle(Topic("ticks.price", TOPIC_ID, 1))
        schema = catalog.schemas[catalog.writing["price"]]
        program, rules = compile_program(catalog, schema), SourceRules.of(catalog, "price")
        self._worker = Materializer(RunComputation(rules, schema, program, 1_000), sink)

    def send(self, messages: Sequence[dict[str, Any]], key: bytes | None = None) -> None:
        """Store messages as a run, as a worker does."""
        records = [
            Record(
                "ticks.price",
                0,
                self._offset + number,
                self.at_ms,
                key or one["symbol"].encode(),
                json.dumps(one).encode(),
            )
            for number, one in enumerate(messages)
        ]
        self._offset += len(records)
        self.sent += messages
        (run,) = runs(records, [], records[0].offset)
        self._worker.materialize(replace(run, topic="ticks.price"), GO_ON)

    def trade(self, symbol: str, price: float, **more: Any) -> dict[str, Any]:
        seq = len(self.sent) * 100 + self._chance.randrange(100)
        made = {"symbol": symbol, "price": price, "ts": self.at_ms, "seq": seq, **more}
        self._trades.append(made)
        return made

    def go_on(self, n: int) -> None:
        """A run of so many messages."""
        self.at_ms += self._chance.choice([1, 400, 3_000])
        self.send([self.message() for _ in range(n)])

    def message(self) -> dict[str, Any]:
        chance = self._chance
        symbol = chance.choice(SYMBOLS)
        price = chance.choice([1.5, 2.25, 100.0, 99.5, 1e-3, 7.25])
        kind = chance.choices(["trade", "late", "cancel", "correct", "reset"], [70, 10, 8, 8, 2])[0]
        late = self.at_ms - SKEW_MS - chance.choice([1, 500, 5_000, 20_000])
        match kind:
            case "trade":
                return self.trade(symbol, price)
            case "late":
                return self.trade(symbol, price, ts=late)
            case "reset":
                return self.trade(symbol, price, op="reset")
        of = chance.choice(self._trades or [self.trade(symbol, price)])
        named = {"ts": of["ts"], "seq": of["seq"]}
        made = {"symbol": of["symbol"], "ts": self.at_ms, "seq": 1, "op": kind, "of": named}
        return made | ({"price": price} if kind == "correct" else {})


class Ticks:
    """The ticks of each symbol: those that live accepted, and what edits have made of them."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._edits: list[dict[str, Any]] = []
        self._taken = 0

    def repair(self) -> None:
        """Take all edits that were sent by now."""
        self._edits += [
            one
            for one in self._feed.sent[self._taken :]
            if one.get("op") in ("cancel", "correct") or self._is_late(one)
        ]
        self._taken = len(self._feed.sent)

    def _is_late(self, one: dict[str, Any]) -> bool:
        (found,) = query(
            self._feed.postgres,
            "SELECT count(*) FROM tickwell.rejected_ticks WHERE reason = 'late'"
            " AND convert_from(value, 'UTF8')::json ->> 'seq' = %s",
            str(one["seq"]),
        )
        return bool(found[0])

    def repaired(self) -> None:
        """The edits are those that repairs have taken by now, in the order of these."""
        taken = query(
            self._feed.postgres,
            'SELECT edit."offset" FROM tickwell.repair_edits AS edit'
            " JOIN tickwell.repairs ON repairs.id = edit.repair"
            ' JOIN tickwell.rejected_ticks AS sent USING (topic_id, partition, "offset", index)'
            ' ORDER BY repairs.known_at, sent.known_at, "offset"',
        )
        self._edits = [self._feed.sent[offset] for (offset,) in taken]

    def of(self, symbol: str) -> dict[Key, Listed]:
        """The ticks of a symbol, in their order."""
        ticks: dict[Key, Listed] = {
            (at, sequence): Listed(tick_time, seq, op, tuple(fields))
            for at, sequence, tick_time, seq, op, fields in query(
                self._feed.postgres,
                "SELECT DISTINCT event_time, sequence, tick_time, seq, op, fields"
                " FROM tickwell.feature_rows WHERE entity = %s AND revision = 0",
                symbol,
            )
        }
        cancelled: list[Listed] = []
        used = {key: key for key in ticks}
        for edit in self._edits:
            if edit["symbol"] != symbol:
                continue
            if edit.get("op") not in ("cancel", "correct"):
                at = edit["ts"] * 10**6
                named = (at, edit["seq"])
                if any((one.tick_time, one.seq) == named for one in [*ticks.values(), *cancelled]):
                    continue
                sequence = max((s for time, s in used if time == at), default=-1) + 1
                op = {"trade": 0, "reset": 1}[edit.get("op", "trade")]
                fields = (edit["price"], math.nan) if op == 0 else (math.nan, math.nan)
                key = (at, sequence)
                ticks[key] = Listed(at, edit["seq"], op, fields)
                used[key] = key
                continue
            named = (edit["of"]["ts"] * 10**6, edit["of"]["seq"])
            keys = [k for k, one in ticks.items() if (one.tick_time, one.seq) == named]
            if not keys:
                continue
            if edit["op"] == "cancel":
                cancelled.append(ticks.pop(keys[0]))
            else:
                fields = (edit["price"], math.nan)
                ticks[keys[0]] = ticks[keys[0]]._replace(fields=fields)
        return dict(sorted(ticks.items()))

    def check(self, known: int, features: Sequence[str] = tuple(FEATURES)) -> None:
        """A training set as known at a moment has what is expected at each event time."""
        questions: list[tuple[str, int]] = []
        expected: dict[str, list[Any]] = {name: [] for name in features}
        for symbol in SYMBOLS:
            window: list[tuple[float, ...]] = []
            by_time: dict[int, list[tuple[float, ...]]] = {}
            for (at, _), one in self.of(symbol).items():
                window = [] if one.op else [*window, one.fields][-21:]
                by_time[at] = window
            for at, window in by_time.items():
                questions.append((symbol, at))
                for name in features:
                    expected[name].append(evaluate(FEATURES[name], window))
        found = known_at(self._feed.postgres, features, questions, known)
        for name in features:
            for question, cell, value in zip(questions, found[name], expected[name], strict=True):
                bits, status, event_time = cell
                assert event_time == question[1], (name, question, cell)
                assert status.replace("stale", "ok") == value.status, (name, question, cell, value)
                if value.value is not None:
                    assert bits is not None
                    error = abs(float.fromhex(bits) - value.value)
                    assert error <= 1e-12 * value.magnitude, (name, question, cell, value)


def known_at(
    postgres: str,
    features: Sequence[str],
    questions: Sequence[tuple[str, int]],
    known: int | None,
) -> dict[str, list[Cell]]:
    """What is answered as of a moment, with repairs; None for what was served."""
    import numpy as np

    with joining(postgres, features) as join:
        rows = asked([at for _, at in questions], symbol=[symbol for symbol, _ in questions])
        if known is None:
            columns = join.columns(rows)
        else:
            columns = join.columns(rows, np.full(len(rows), known), repaired=True)
    return {name: cells(column) for name, column in columns.items()}


def repair(feed: Feed, catalog: Catalog, **chosen: Any) -> Repaired:
    work = Repair(feed.postgres, catalog, "price", page=3)
    return work.run(Chosen(**chosen), "ann", "", lambda _: None, NEVER)


def settled(feed: Feed) -> int:
    engine = connect(feed.postgres, pool_size=1)
    try:
        return settle_all(feed.postgres, lambda: load(engine), NEVER)
    finally:
        engine.dispose()


def served_rows(feed: Feed) -> list[tuple[Any, ...]]:
    return query(
        feed.postgres,
        "SELECT md5(t::text) FROM tickwell.feature_rows AS t WHERE revision = 0 ORDER BY t",
    )
