"""Hot under every interleaving: workers, readers, evictions and losses, step by step.

What hot answers with is never older than what warm had when the worker of the partition ended its
last turn, and right after such a turn it is exactly what warm has.
"""

from __future__ import annotations

from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from registry.formats.hot import lease_key, row_key
from tests.support.feeds import FeedingWorker
from tests.support.hot import Promotion, Reader
from tests.support.logs import TOPIC_ID, runs
from tests.support.sinks import closing, ticks
from tests.support.stored import stored_rows

pytestmark = pytest.mark.timeout(120)

SYMBOLS = ["A", "B", "C"]
one_symbol = st.sampled_from(SYMBOLS)


class Hot(RuleBasedStateMachine):
    """One partition; `worker` is the current worker, `paused` are those before it."""

    warm_url: str
    hot_url: str

    @initialize()
    def start(self) -> None:
        self.closing = closing()
        self.opened = self.closing.__enter__()
        self.warm: Any = self.opened(redis.Redis.from_url(self.warm_url))
        self.hot: Any = self.opened(redis.Redis.from_url(self.hot_url))
        for client in (self.warm, self.hot):
            client.flushall()
        self.reader = Reader(self.hot, self.warm, TOPIC_ID)
        self.offset = 0
        self.paused: list[FeedingWorker] = []
        self.promotions: list[Promotion | None] = []
        self.had: dict[str, list[bytes]] = {symbol: [] for symbol in SYMBOLS}
        """The rows that warm has had of each symbol."""
        self.least = dict.fromkeys(SYMBOLS, 0)
        """The index of the oldest of them that hot may answer with."""
        self.worker = self._new_worker()

    def _new_worker(self) -> FeedingWorker:
        return FeedingWorker(self.opened, self.warm_url, self.hot_url).take()

    def _note(self) -> None:
        for symbol, row in zip(SYMBOLS, stored_rows(self.warm, "price", SYMBOLS), strict=True):
            if row is not None and row not in self.had[symbol][-1:]:
                self.had[symbol].append(row)

    @rule(symbols=st.lists(one_symbol, min_size=1, max_size=4), paused=st.booleans())
    def store(self, symbols: list[str], paused: bool) -> None:
        """The current worker stores a run, or one before it, which believes that it may."""
        who = self.paused[-1] if paused and self.paused else self.worker
        (run,) = runs(ticks(symbols, len(symbols), self.offset), (), self.offset)
        who.store(run)
        self.offset = run.next_offset
        self._note()

    @rule()
    def refuse(self) -> None:
        """Warm is full for a moment."""
        (run,) = runs(ticks(SYMBOLS, 3, self.offset), (), self.offset)
        computed = self.worker.work.compute_ahead(run)
        if computed is None:
            return
        self.warm.config_set("maxmemory", 1)
        stored = self.worker.work.store(computed)
        self.warm.config_set("maxmemory", 0)
        assert stored is None
        self._note()

    @rule()
    def turn(self) -> None:
        self.worker.feed.turn()
        self.least = {symbol: len(rows) - 1 for symbol, rows in self.had.items()}

    @rule()
    def turn_of_a_paused_one(self) -> None:
        if self.paused:
            self.paused[-1].feed.turn()

    @rule(symbol=one_symbol)
    def begin_promotion(self, symbol: str) -> None:
        self.promotions.append(self.reader.begin("price", symbol))

    @rule(which=st.integers(0, 3))
    def finish_promotion(self, which: int) -> None:
        if self.promotions:
            self.reader.finish(self.promotions.pop(which % len(self.promotions)))

    @rule(symbol=one_symbol)
    def promote(self, symbol: str) -> None:
        self.reader.promote("price", symbol)

    @rule(symbol=one_symbol)
    def evict_row(self, symbol: str) -> None:
        self.hot.delete(row_key("price", symbol))

    @rule(symbol=one_symbol)
    def evict_lease(self, symbol: str) -> None:
        self.hot.delete(lease_key("price", symbol))

    @rule()
    def mark_ends(self) -> None:
        self.hot.delete(self.reader.mark)

    @rule()
    def hot_is_emptied(self) -> None:
        self.hot.flushall()

    @rule()
    def another_worker(self) -> None:
        """The current one is paused, or killed between warm and hot."""
        self.paused.append(self.worker)
        self.worker = self._new_worker()

    @rule()
    def assigned_again(self) -> None:
        self.worker.take()

    @invariant()
    def nothing_stale_is_believed(self) -> None:
        if not hasattr(self, "worker"):
            return
        found = self.reader.all_believed("price", SYMBOLS)
        for symbol, row in zip(SYMBOLS, found, strict=True):
            if row is not None:
                assert self.had[symbol].index(row) >= self.least[symbol], symbol

    def teardown(self) -> None:
        if hasattr(self, "worker"):
            self.closing.__exit__(None, None, None)


def test_hot_is_never_older_than_the_last_turn(redis_database: str, hot_redis: str) -> None:
    class Here(Hot):
        warm_url, hot_url = redis_database, hot_redis

    chosen = settings(
        max_examples=60,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_machine(Here, settings=chosen)
