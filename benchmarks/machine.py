"""Where it was measured: figures without their machine are none."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import redis

import tickwell.embedded
from benchmarks.peers.environment import Environment
from benchmarks.processes import ROOT
from benchmarks.services import Services
from tickwell.embedded.allocator import allocator_of

LIBRARIES = (
    *("aiokafka", "confluent-kafka", "faust-streaming", "msgspec", "numba", "numpy"),
    *("psycopg2-binary", "redis", "starlette", "uvicorn"),
)


def describe(services: Services, peers: Sequence[Environment]) -> dict[str, Any]:
    """Processor, memory, system, and the version of everything that takes part."""
    with redis.Redis.from_url(services.settings.redis) as store:
        valkey = store.info("server").get("valkey_version", "")
    connection = psycopg2.connect(services.settings.postgres)
    server = connection.get_parameter_status("server_version")
    connection.close()
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "load_before": os.getloadavg()[0],
        "commit": _commit(),
        "python": platform.python_version(),
        "broker": f"Apache Kafka {_kafka()}" if services.broker == "kafka" else "Tansu",
        "valkey": f"{valkey}, {allocator_of(services.pids['redis-warm'])}",
        "postgres": server,
        "libraries": {name: version(name) for name in LIBRARIES},
        "peers": {name: of for peer in peers for name, of in peer.versions().items()},
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _kafka() -> str:
    pom = Path(tickwell.embedded.__path__[0], "pom.xml").read_text()
    found = re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>([^<]+)", pom)
    return found[1] if found else ""


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip()
