"""Load on a server: what is asked of it, and the run that comes of it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import Any

import psutil

from benchmarks.asking import ENTITIES, FEATURES, Api, bodies, head
from benchmarks.processes import Child, processor_seconds, running
from benchmarks.results import Failed, Run
from benchmarks.services import Services
from tickwell.embedded.ports import HOST, connect

READY_SECONDS = CLIENT_SECONDS = 60.0
LAST_WORDS = 1_500
WARM_REQUESTS = 10
PROBED = 50
"""Each of so many symbols is looked at."""


@dataclass(frozen=True, slots=True)
class Load:
    """A question (`asking`), and by how many connections at once, for how long."""

    question: str
    connections: int
    seconds: float
    entities: int = ENTITIES


def asked(
    services: Services, server: Child, port: int, load: Load, api: Api = "tickwell", key: str = ""
) -> Run:
    """Microseconds of processor time a request, of the server's process and those it has started.

    With `key` each request has this API key, a deadline and a request id.
    Raises `Failed` where a request is not answered with 200 or a connection ends.
    """
    path, headers = head(load.question, api, key)
    for body in islice(bodies(load.question, load.entities, api), WARM_REQUESTS):
        post(port, path, body, headers)  # what is imported for the first answer is in no figure
    words = [str(port), str(load.connections), str(load.seconds), load.question]
    words += ["--entities", str(load.entities), "--of", api]
    words += ["--key", key] if key else []
    before, began = processor_seconds(server.pid), time.monotonic()
    with running("clients", ["-m", "benchmarks.asking", *words], {}, services.place) as clients:
        clients.popen.wait(load.seconds + CLIENT_SECONDS)
        if clients.popen.returncode:
            raise Failed(clients.log.read_text(errors="replace")[-LAST_WORDS:])
    after, took = processor_seconds(server.pid), time.monotonic() - began
    told = json.loads(clients.log.read_text().splitlines()[-1])
    if told["refused"]:
        raise Failed(f"{told['refused']} requests were refused: {told['why']}")
    return Run(
        value=(after - before) / told["in_all"] * 1e6,
        unit="µs a request",
        ticks=told["in_all"],
        seconds=took,
        cpu={"server": round(after - before, 3)},
        memory_mb=_largest_mb(server.pid),
        detail={"a_second": told["a_second"], "ms": told["ms"]},
    )


def post(port: int, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The body of the answer to one request. Raises `Failed` where its status is not 200."""
    with closing(http.client.HTTPConnection(HOST, port, timeout=CLIENT_SECONDS)) as connection:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    if answer.status != HTTPStatus.OK:
        raise Failed(f"{path} was answered {answer.status}: {content[:300]!r}")
    return content


def asked_once(port: int, numbers: Iterable[int], key: str = "") -> Any:
    """The answer to one question for all features of symbols. Raises `Failed` where it is none."""
    entities = [{"symbol": f"S{number}"} for number in numbers]
    body = json.dumps({"features": FEATURES, "entities": entities})
    path, headers = head("batch", key=key)
    return json.loads(post(port, path, body.encode(), headers))


def statuses(port: int, numbers: Iterable[int], key: str = "") -> set[str]:
    """Those of all values of these symbols. Raises `Failed` as above."""
    told = asked_once(port, numbers, key)
    return {one["features"][name]["status"] for one in told["results"] for name in FEATURES}


def await_ok(server: Child, port: int, key: str = "") -> None:
    """Wait until a server has read what there is: catalog, keys and heartbeats."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            found = statuses(port, range(0, ENTITIES, PROBED), key)
            if found == {"ok"}:
                return
            why = f"of the values some are {sorted(found)}"
        except Failed as error:
            why = str(error)
        server.check()
        if time.monotonic() > deadline:
            raise Failed(why)
        time.sleep(0.1)


def await_port(server: Child, port: int) -> None:
    """Wait until a server listens. Raises `Failed` where it does not."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            connect(HOST, port)
        except OSError:
            server.check()
            if time.monotonic() > deadline:
                raise Failed(f"{server.name} does not listen") from None
            time.sleep(0.05)
        else:
            return


def _largest_mb(pid: int) -> float:
    """Resident memory of the largest of a process and those that it has started, MiB."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return max(float(one.memory_info().rss) for one in family) / 2**20
