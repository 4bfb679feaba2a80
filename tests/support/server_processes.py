"""A server of one or several processes, and clients that count what they lose."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.support.pipeline import wait_for
from tickwell.embedded.ports import HOST, keep_port

ASK = json.dumps({"features": ["current_price"], "entity": {"symbol": "A"}}).encode()
SECONDS = 60
"""Seconds that a client waits for an answer."""


@dataclass
class RunningServer:
    """`tickwell serve`, with its output in `log`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def children(self) -> dict[int, psutil.Process]:
        """The processes that serve, by pid, without those that have ended and wait to be noted."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                if child.status() != psutil.STATUS_ZOMBIE:
                    found[child.pid] = child
            except psutil.NoSuchProcess:
                continue
        return found

    def status(self, path: str) -> int:
        """The status of an answer on a connection of its own, 0 where there is none."""
        try:
            return httpx.get(self.url + path, timeout=SECONDS).status_code
        except httpx.HTTPError:
            return 0

    def metrics(self) -> dict[str, float]:
        text = httpx.get(f"{self.url}/metrics", timeout=SECONDS).text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def answered(self) -> float:
        """How many requests of features all processes have answered with 200."""
        name = 'tickwell_requests_total{route="/features/online",status="200"}'
        return self.metrics().get(name, 0.0)

    def connections(self) -> list[int]:
        """The open connections of each process; none where there is no answer.

        A process that was just killed may have accepted the question.
        """
        name = re.compile(r"tickwell_connections\{process=")
        try:
            found = self.metrics()
        except httpx.TransportError:
            return []
        return [int(value) for key, value in found.items() if name.match(key)]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextmanager
def starting_server(
    place: Path, processes: int, stores: Mapping[str, str], **settings: object
) -> Iterator[RunningServer]:
    """A server that was just started; whatever is left of it at the end is killed."""
    port, log = keep_port(place / "port"), place / "serve.log"
    given = {"TICKWELL_DATA": str(place)}
    given |= {f"TICKWELL_{name.upper()}": str(value) for name, value in settings.items()}
    command = ("serve", "--port", str(port), "--workers", str(processes))
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tickwell", *command],
            env={**stores, **given},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server, children = RunningServer(process, port, log), []
    try:
        yield server
    finally:
        if process.poll() is None:
            children = list(server.children().values())
            process.terminate()
        try:
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()
            for child in children:
                if child.is_running():
                    child.kill()


@contextmanager
def running_server(
    place: Path, processes: int, stores: Mapping[str, str], **settings: object
) -> Iterator[RunningServer]:
    """One whose processes all serve."""
    with starting_server(place, processes, stores, **settings) as server:
        wait_for("the server is ready", lambda: server.status("/health/ready") == 200)
        if processes > 1:
            wait_for("every process serves", lambda: len(server.connections()) == processes)
        yield server


@dataclass
class Clients:
    """Clients that ask over connections that they keep, each as often as the server lets it.

    A client that is told `Connection: close` with an answer connects again.
    """

    port: int
    answers: Counter[int] = field(default_factory=Counter)
    """Answers by their status."""

    lost: list[str] = field(default_factory=list)
    """Why requests that were sent have no answer."""

    refused: int = 0
    """Clients that could not connect, and have stopped."""

    reconnected: int = 0
    stopping: bool = False
    sent: int = 0

    async def run(self, connections: int, requests: int | None = None) -> None:
        """Ask so many requests in all, or until `stopping`."""
        async with asyncio.timeout(SECONDS * 2):
            await asyncio.gather(*(self._client(requests) for _ in range(connections)))

    async def _client(self, requests: int | None) -> None:
        head = f"POST /features/online HTTP/1.1\r\nhost: t\r\ncontent-length: {len(ASK)}\r\n\r\n"
        while not self._is_over(requests):
            try:
                reader, writer = await asyncio.open_connection(HOST, self.port)
            except OSError:
                self.refused += 1
                return
            try:
                while not self._is_over(requests):
                    self.sent += 1
                    writer.write(head.encode() + ASK)
                    status, last = await _answer(reader)
                    self.answers[status] += 1
                    if last:
                        self.reconnected += 1
                        break
            except (OSError, asyncio.IncompleteReadError) as error:
                self.lost.append(repr(error))
            finally:
                writer.close()

    def _is_over(self, requests: int | None) -> bool:
        return self.stopping or (requests is not None and self.sent >= requests)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status of an answer, and whether it was the last one of its connection."""
    async with asyncio.timeout(SECONDS):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None, head
        await reader.readexactly(int(length[1]))
    return int(head.split(b" ", 2)[1]), b"connection: close" in head
