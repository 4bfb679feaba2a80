"""A search in 10,000 features, beside what one would write without it: `LIKE` on the same table.

Both are asked for the same texts in turn, over one connection, for a page of twenty. `LIKE` looks
for each word of the text anywhere in name and description, forgives nothing, and orders by name.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine

from benchmarks.results import Failed, Run
from benchmarks.services import Services
from registry import catalog
from registry.database.engine import connect
from registry.definitions import FeatureVersion
from registry.lifecycle.search import search
from registry.lifecycle.search_documents import update_search

FEATURES = 10_000
ASKED = 200
"""Searches of each kind."""

PAGE = 20
SEED = 15
LIKE = """
SELECT name, description FROM tickwell.search_documents
WHERE name || ' ' || description LIKE ALL (%(patterns)s) ORDER BY name LIMIT 20
"""
IN_NAMES = """price volume return spread depth imbalance momentum volatility sma ewma rsi beta corr
skew kurt zscore rank bid ask mid trade quote open close high low vwap turnover exposure drift carry
basis funding hedge delta gamma vega theta""".split()  # noqa: SIM905
IN_TEXTS = """the of last ticks mean rolling weighted signed absolute cross sectional market
adjusted intraday overnight session ratio difference normalised clipped robust estimate against
index future option book level queue size notional currency sector desk risk""".split()  # noqa: SIM905

Timed = dict[str, float]
"""Milliseconds, by percentile."""


def searches(services: Services) -> Run:
    """The worst kind's 99th percentile of a search, in milliseconds, and all kinds of both."""
    settings = services.fresh(services.settings)
    chosen = random.Random(SEED)
    engine = connect(settings.postgres)
    try:
        names = _features(engine, chosen)
        with closing(engine.connect()) as connection:
            kinds = {
                kind: _measured(connection, [make() for _ in range(ASKED)])
                for kind, make in _kinds(names, chosen).items()
            }
    finally:
        engine.dispose()
    worst = max(kind["search"]["p99"] for kind in kinds.values())
    return Run(value=worst, unit="ms", detail={"kinds": kinds, "features": len(names)})


def _features(engine: Engine, chosen: random.Random) -> list[str]:
    """Record what a search finds of features at random; their names."""
    made: dict[str, FeatureVersion] = {}
    while len(made) < FEATURES:
        words = chosen.sample(IN_NAMES, chosen.randint(2, 4))
        name = "_".join([*words, str(chosen.randint(2, 500))])
        made[f"{name}@1.0.0"] = FeatureVersion(
            name=name,
            version="1.0.0",
            entity=("symbol",),
            expression="mean(price, 5)",
            source="price",
            description=" ".join(chosen.choices(IN_TEXTS, k=10)),
            owner=chosen.choice(["ann", "bob", "desk"]),
            tags=(chosen.choice(["risk", "fast", "eod"]),),
        )
    with engine.begin() as connection:
        known = catalog.read(connection)
        update_search(connection, msgspec.structs.replace(known, features=made))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE tickwell.search_documents")
    return [feature.name for feature in made.values()]


def _kinds(names: Sequence[str], chosen: random.Random) -> dict[str, Callable[[], str]]:
    def mistyped() -> str:
        word = chosen.choice([word for word in IN_NAMES if len(word) > 5])
        cut = chosen.randrange(1, len(word) - 1)
        return f"{word[:cut]}{word[cut + 1]}{word[cut]}{word[cut + 2 :]} {chosen.choice(IN_NAMES)}"

    return {
        "a name": lambda: chosen.choice(names),
        "the beginning of a name": lambda: chosen.choice(names)[: chosen.randint(3, 12)],
        "a word": lambda: chosen.choice(IN_NAMES),
        "three words": lambda: " ".join([*chosen.sample(IN_TEXTS, 2), chosen.choice(IN_NAMES)]),
        "a typing error": mistyped,
    }


def _measured(connection: Connection, texts: Sequence[str]) -> dict[str, Timed]:
    def like(text: str) -> Any:
        patterns = [f"%{word}%" for word in text.replace("_", r"\_").split()]
        return connection.exec_driver_sql(LIKE, {"patterns": patterns}).all()

    def own(text: str) -> Any:
        found = search(connection, text, PAGE).features
        if not found and like(text):
            raise Failed(f"a search finds nothing for {text!r}, and LIKE does")
        return found

    for text in texts[:20]:
        own(text), like(text)
    timed: dict[str, list[float]] = {"search": [], "LIKE": []}
    for text in texts:
        timed["LIKE"].append(_milliseconds(like, text))
        timed["search"].append(_milliseconds(lambda text: search(connection, text, PAGE), text))
    return {name: _percentiles(found) for name, found in timed.items()}


def _milliseconds(work: Callable[[str], Any], text: str) -> float:
    began = time.perf_counter()
    work(text)
    return (time.perf_counter() - began) * 1_000


def _percentiles(values: Sequence[float]) -> Timed:
    return {"p50": statistics.median(values), "p99": statistics.quantiles(values, n=100)[98]}


def table(runs: Sequence[Run]) -> list[str]:
    """Both, by what was asked for: of each percentile the median of the rounds."""
    lines = [
        "| asked for | search, ms: p50 | p99 | LIKE, ms: p50 | p99 | p99, search / LIKE |",
        "|---|---|---|---|---|---|",
    ]
    good = [run.detail["kinds"] for run in runs if run.value is not None]
    for kind in good[0] if good else ():
        of = {
            (name, percentile): statistics.median(kinds[kind][name][percentile] for kinds in good)
            for name in ("search", "LIKE")
            for percentile in ("p50", "p99")
        }
        ratio = statistics.median(k[kind]["search"]["p99"] / k[kind]["LIKE"]["p99"] for k in good)
        shown = " | ".join(f"{value:.1f}" for value in of.values())
        lines.append(f"| {kind} | {shown} | {ratio:.2f} |")
    return lines
