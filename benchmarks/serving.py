"""Requests to the server, beside routes that answer nothing and beside Feast's server.

What is measured is requests a second, processor time a request, and percentiles of the time to an
answer; the ratios that count are those of one round (`serving_table`). `market` says what the
server's stores have.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import beside_workers, feast_server
from benchmarks.asking import ENTITIES
from benchmarks.latency import start_server
from benchmarks.load import Load, asked, asked_once, await_ok, await_port
from benchmarks.market import market
from benchmarks.processes import THIS, Build, running
from benchmarks.results import Failed, Run
from benchmarks.services import Services, api_key
from benchmarks.serving_table import (
    BEFORE,
    CHECKED,
    EMPTY_OURS,
    EMPTY_STOCK,
    FEAST,
    HOT,
    PRECOMPUTED,
    THIS_BUILD,
    WORKERS,
)
from tickwell.embedded.ports import HOST, keep_port

CONNECTIONS, MORE_CONNECTIONS = 32, (256, 1_000)
FEW, MANY = 500, 1_000_000
"""Entities over which the time to an answer must not grow."""

HOT_RATIO = 0.99
"""The part of the rows that must come from hot, or it was not hot that was measured."""

HOT_SECONDS = 30.0
AT_ONCE = 250

Case = tuple[str, Callable[[Services], Run]]
"""A subject, and the run that it takes."""


def cases(seconds: float, before: Build | None = None, entities: int = MANY) -> list[Case]:
    """What one round measures, in turn."""
    found: list[Case] = []

    def add(load: Load, *subjects: tuple[str, Callable[..., Run]]) -> None:
        of = f"{load.question}, {load.connections} connections"
        if load.entities != ENTITIES:
            of += f", {load.entities:,} entities"
        found.extend((f"{of}: {name}", partial(run, load=load)) for name, run in subjects)

    stock = EMPTY_STOCK, partial(empty_route, protocol="stock")
    ours = EMPTY_OURS, partial(empty_route, protocol="ours")
    this = THIS_BUILD, serving
    checked = CHECKED, partial(serving, is_checked=True)
    hot = HOT, partial(serving, is_checked=True, is_hot=True)
    workers = WORKERS, beside_workers.serving
    feasts = [(FEAST, feast_server.plain), (PRECOMPUTED, feast_server.precomputed)]
    earlier = [] if before is None else [(BEFORE, partial(serving, build=before))]
    add(Load("one", CONNECTIONS, seconds), stock, ours, *earlier, this, checked, hot)
    add(Load("one", CONNECTIONS, seconds), workers, *feasts)
    for connections in MORE_CONNECTIONS:
        add(Load("one", connections, seconds), stock, ours, checked)
    add(Load("batch", CONNECTIONS, seconds), stock, ours, *earlier, this, *feasts)
    add(Load("compact", CONNECTIONS, seconds), this)
    add(Load("arrow", 1, seconds), this)
    for number in (FEW, entities):
        add(Load("one", CONNECTIONS, seconds, number), this)
    return found


def serving(
    services: Services,
    load: Load,
    build: Build = THIS,
    is_checked: bool = False,
    is_hot: bool = False,
) -> Run:
    """Load on the server; with `is_hot` it reads a hot tier that has what is asked for."""
    settings = services.fresh(services.settings, build)
    if not is_hot:
        settings = msgspec.structs.replace(settings, redis_hot="")
    key = api_key(settings) if is_checked else ""
    port = keep_port(services.place / "server-port")
    with market(settings, load.entities):
        server = start_server(services, settings, port, build, ["--keys"] if is_checked else [])
        try:
            await_ok(server, port, key)
            if not is_hot:
                return asked(services, server, port, load, key=key)
            _await_hot(port, key)
            before = _rows_of_hot(port)
            run = asked(services, server, port, load, key=key)
            after = _rows_of_hot(port)
            ratio = (after[1] - before[1]) / (after[0] - before[0])
            if ratio < HOT_RATIO:
                raise Failed(f"{ratio:.3f} of the rows came from hot")
            return msgspec.structs.replace(run, detail={**run.detail, "hot_ratio": ratio})
        finally:
            server.stop()


def empty_route(services: Services, load: Load, protocol: str) -> Run:
    """The same of a route that answers nothing, by `stock` uvicorn or by `ours`."""
    port = keep_port(services.place / "server-port")
    command = ["-m", "benchmarks.peers.empty_route", str(port), protocol]
    with running("empty", command, {}, services.place) as server:
        await_port(server, port)
        return asked(services, server, port, load)


def _await_hot(port: int, key: str) -> None:
    """Ask for every row until all are read from hot, which has brought them in."""
    deadline = time.monotonic() + HOT_SECONDS
    before = _rows_of_hot(port)
    while True:
        for begin in range(0, ENTITIES, AT_ONCE):
            asked_once(port, range(begin, begin + AT_ONCE), key)
        after = _rows_of_hot(port)
        asked_for, found = (b - a for a, b in zip(before, after, strict=True))
        if asked_for == found > 0:
            return
        if time.monotonic() > deadline:
            raise Failed(f"hot has {found:,.0f} of {asked_for:,.0f} rows")
        before = after
        time.sleep(0.25)


def _rows_of_hot(port: int) -> tuple[float, float]:
    """How many rows hot was asked for and had, as the server's metrics say."""
    with closing(http.client.HTTPConnection(HOST, port, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return rows_of_hot(text)


def rows_of_hot(metrics: str) -> tuple[float, float]:
    """The same of Prometheus' text."""
    counts: dict[str, Any] = {
        sample.name: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.labels.get("tier") == "hot"
    }
    return (
        counts.get("tickwell_tier_rows_asked_total", 0.0),
        counts.get("tickwell_tier_rows_found_total", 0.0),
    )
