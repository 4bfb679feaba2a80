"""What becomes of throughput and memory with 100, 10,000 and 1,000,000 entities."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec

from benchmarks.backlog import Backlog
from benchmarks.memory import of_worker
from benchmarks.online import peer
from benchmarks.peers.environment import PEERS
from benchmarks.processes import ROOT, THIS, Build
from benchmarks.results import Run
from benchmarks.services import Services, execute

ENTITIES = (100, 10_000, 1_000_000)
BEFORE = "before"
SIZE = "SELECT pg_database_size(current_database())"
LIMIT_SECONDS = 240.0


def growth(services: Services, backlog: Backlog, sink: str, build: Build = THIS) -> Run:
    """Ticks a second of one worker over a backlog, with its memory and its store's."""
    run = of_worker(services, backlog, sink, LIMIT_SECONDS, build)
    stored = execute(services.postgres, SIZE) / 2**20 if sink == "offline" else None
    detail = {name: run.detail[name] for name in ("first_mb", "last_mb", "peak_mb", "redis_mb")}
    return msgspec.structs.replace(
        run,
        value=run.detail["rate"],
        unit="ticks/s",
        detail={**detail, "entities": backlog.symbols, "postgres_mb": stored},
    )


def peer_growth(services: Services, backlog: Backlog, name: str, seconds: float) -> Run:
    """Ticks a second of a peer over a backlog, for `seconds`; it stores no results."""
    run = peer(services, backlog, name, seconds)
    return msgspec.structs.replace(run, detail={**run.detail, "entities": backlog.symbols})


def plot(runs: list[Run], picture: Path) -> None:
    """Draw what `growth` found, with the peers' Python: it has matplotlib."""
    points = [
        {
            "subject": run.subject.rpartition(", ")[0],
            "entities": run.detail["entities"],
            "rate": run.value,
            "memory": run.detail["peak_mb"],
        }
        for run in runs
        if run.measure == "growth" and not run.error
    ]
    if not points:
        print("no growth to draw", file=sys.stderr)
        return
    subprocess.run(
        [str(PEERS.python()), "-m", "benchmarks.plot", str(picture)],
        cwd=ROOT,
        input=json.dumps(points),
        text=True,
        check=True,
    )
