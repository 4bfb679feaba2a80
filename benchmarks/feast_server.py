"""Feast's own server over a Redis of the same build and settings as ours, asked the same.

The values are stored once and never again, which ours must do every second. `feast serve` is
gunicorn with one worker, without a log of requests; that worker is not replaced after a thousand
requests, as by default, which would end connections. Its processor time is that of both processes.
"""

from __future__ import annotations

import json

import redis

from benchmarks.asking import DERIVED, ENTITIES, FEATURES, Api, bodies, head
from benchmarks.load import Load, asked, await_port, post
from benchmarks.peers import environment
from benchmarks.processes import ROOT, Build, run_to_end, running
from benchmarks.results import Failed, Run
from benchmarks.services import Services
from tickwell.embedded.ports import HOST, keep_port

PROGRAM = ROOT / "benchmarks/peers/feast_repository.py"
QUIET = {"FEAST_USAGE": "False"}


def plain(services: Services, load: Load) -> Run:
    """Two views, and an on-demand one of what is derived."""
    return _serving(services, load, "feast")


def precomputed(services: Services, load: Load) -> Run:
    """Vectors of all features that were computed when they were written."""
    return _serving(services, load, "precomputed")


def _serving(services: Services, load: Load, api: Api) -> Run:
    folder = services.place / "feast"
    if not (folder / "feature_store.yaml").exists():
        _prepare(services)
    port = keep_port(services.place / "feast-port")
    command = [str(environment.FEAST.place / "bin/feast"), "-c", str(folder), "serve"]
    command += ["--host", HOST, "--port", str(port), "--no-access-log"]
    command += ["--max-requests", "0", "--worker-connections", "2000"]
    with running("feast", command, QUIET, services.place, _build()) as server:
        await_port(server, port)
        _check(port, api)
        return asked(services, server, port, load, api)


def _build() -> Build:
    return Build(str(environment.FEAST.python()))


def _prepare(services: Services) -> None:
    """Record the features and store the values, in a Redis that nobody else uses."""
    address = services.another_redis("of-feast").removeprefix("redis://").removesuffix("/0")
    folder = services.place / "feast"
    folder.mkdir(exist_ok=True)
    command = [str(PROGRAM), str(folder), address, str(ENTITIES)]
    try:
        run_to_end("feast-repository", command, QUIET, services.place, _build())
    except Failed:
        (folder / "feature_store.yaml").unlink(missing_ok=True)
        raise
    with redis.Redis.from_url(f"redis://{address}/0") as store:
        if store.dbsize() < ENTITIES:
            raise Failed(f"Feast has stored {store.dbsize()} keys, not {ENTITIES} or more")


def _check(port: int, api: Api) -> None:
    """Raises `Failed` unless it answers with all values."""
    path, headers = head("one", api)
    told = json.loads(post(port, path, next(bodies("one", api=api)), headers))
    names = told["metadata"]["feature_names"]
    values = {
        name.rpartition("__")[2]: column["values"][0]
        for name, column in zip(names, told["results"], strict=True)
    }
    if set(values) != {"symbol", *FEATURES} or None in values.values():
        raise Failed(f"Feast answered {values}")
    expected = values["current_price"] * values["current_volume"]
    if abs(values[DERIVED[1]] / expected - 1) > 1e-9:
        raise Failed(f"Feast answered {values}, which are not the features of Tickwell")
