"""`make bench`: every figure of the project, beside what it is compared with, in one run.

    python -m benchmarks [online offline latency memory serving hits growth takeover files
        views search backfill applies training history all | builds]
        [--ticks 3000000] [--rounds 5] [--prices rounded] [--out benchmarks/results] [--quick]
        [--before CHECKOUT] [--serving-seconds 5] [--only REGEX]

One broker and one set of stores are started for it. What is compared is measured in turn, round by
round, on one backlog, each in a database, a Redis and a consumer group of its own. Every run goes
to `results.json` at once, the tables to `results.md` in the end. `--quick` tries everything with
sizes that are too small for figures. `builds` compares the processor time and the memory of this
checkout with those of another one, `--before`, in pairs. `growth` and `serving` take that one too,
if named. `--only` selects subjects of the measures: `serving --only "^one, 32"`.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import (
    applies,
    backfill,
    builds,
    files,
    growth,
    history_work,
    hits,
    lake_sets,
    latency,
    memory,
    offline,
    online,
    search,
    serving,
    takeover,
    training,
    views,
)
from benchmarks.backlog import Backlog, Prices, produce
from benchmarks.machine import describe
from benchmarks.peers.environment import FEAST, PEERS
from benchmarks.processes import THIS
from benchmarks.results import Recorder, Report
from benchmarks.services import Services, services
from benchmarks.table import (
    BACKFILL,
    BACKFILL_KAFKA,
    BYTEWAX,
    CSV_PRODUCER,
    DIRECT,
    FIELDS,
    FIELDS_IN_ORDER,
    LIMIT,
    OFFLINE,
    ONLINE,
    PRODUCE,
    QUIX,
    REPLAY,
    STEADY,
    STOCK,
    STOCK_INSERT,
    TWO,
    tables,
)

MEASURES = (
    *("online", "offline", "latency", "memory", "serving", "hits"),
    *("growth", "takeover", "files", "views", "search", "backfill", "applies", "training"),
    "history",
)
WITH_PEERS = {
    "online": PEERS,
    "offline": PEERS,
    "growth": PEERS,
    "serving": FEAST,
    "training": FEAST,
}
"""Measures in which other libraries take part; they are installed for it."""

NESTED = "nested fields and numbers as text"
BUILDS = "builds"
"""Measured only where it is asked for: it needs a second checkout."""
SINKS = ("online", "offline")
SYMBOLS = 100
WARM_UP_TICKS = 20_000
MEMORY_ENTITIES = 10_000
FEW_ROUNDS = 3
"""Rounds of what takes long and varies little."""


def main() -> None:
    wanted = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or services would be left behind
    measures = MEASURES if "all" in wanted.measures else wanted.measures
    with tempfile.TemporaryDirectory(prefix="tickwell-bench-") as work:
        place = Path(work)
        place.chmod(0o755)  # Postgres runs as another user
        with services(place) as running:
            options = {
                name: value
                for name, value in vars(wanted).items()
                if name not in ("out", "plot", "before", "only")
            }
            peers = dict.fromkeys(WITH_PEERS[one] for one in measures if one in WITH_PEERS)
            report = Report(machine=describe(running, list(peers)), options=options)
            recorder = Recorder(report, wanted.out / "results.json")
            bench = _Bench(running, recorder, wanted)
            bench.warm_up()
            for measure in (*MEASURES, BUILDS):
                if measure in measures:
                    getattr(bench, measure)()
    shown = tables(report)
    (wanted.out / "results.md").write_text(shown)
    print(shown)
    if "growth" in measures:
        growth.plot(report.runs, wanted.plot or wanted.out / "growth.svg")
    if any(run.error for run in report.runs):
        sys.exit(1)


class _Bench:
    """The measures, with what is kept between them: backlogs."""

    def __init__(self, running: Services, recorder: Recorder, wanted: Any) -> None:
        self._services = running
        self._recorder = recorder
        self._wanted = wanted
        self._backlogs: dict[tuple[int, int, str], Backlog] = {}

    def warm_up(self) -> None:
        """Work once, so that no compiler is in any figure."""
        few = self._backlog(WARM_UP_TICKS, SYMBOLS)
        for sink in SINKS:
            memory.of_worker(self._services, few, sink)

    def online(self) -> None:
        prices: Prices = "full" if self._wanted.prices == "rounded" else "rounded"
        main, other = self._main(), self._backlog(self._wanted.ticks, SYMBOLS, prices)
        for number in self._rounds():
            do = partial(self._do, "online", number)
            do(ONLINE, online.online, main)
            do(BYTEWAX, online.peer, main, BYTEWAX, self._wanted.peer_seconds)
            do(QUIX, online.peer, main, QUIX, self._wanted.peer_seconds)
            do(STOCK, online.peer, main, STOCK, self._wanted.peer_seconds)
            do(f"{ONLINE}, {prices} prices", online.online, other)
            do(STEADY, online.together, main, ("one",))
            do(TWO, online.together, main, ("one", "two"))

    def offline(self) -> None:
        main, rows = self._main(), offline.Rows([], 0)
        for number in self._rounds():
            do = partial(self._do, "offline", number)
            if do(OFFLINE, offline.offline, main) and not rows.rows:
                rows = offline.rows_of(self._services.postgres)
            do(LIMIT, offline.limit, main, rows, True)
            do(DIRECT, offline.limit, main, rows, False)
            do(REPLAY, offline.replay, main)
            do(STOCK_INSERT, online.peer, main, STOCK_INSERT, self._wanted.peer_seconds)

    def latency(self) -> None:
        seconds, both = self._wanted.latency_seconds, ("online", "offline")
        for number in self._rounds():
            do = partial(self._do, "latency", number)
            do("online worker", latency.latency, seconds, ("online",))
            do("both workers at work", latency.latency, seconds, both)

    def memory(self) -> None:
        many = self._backlog(self._wanted.memory_ticks, MEMORY_ENTITIES)
        for sink in SINKS:
            self._do("memory", 1, f"{sink} worker", memory.of_worker, many, sink)
        few = self._backlog(WARM_UP_TICKS, SYMBOLS)
        clients = f"server, {memory.CLIENTS} clients without a pause"
        self._do("memory", 1, clients, memory.of_server, few, self._wanted.load_seconds)

    def serving(self) -> None:
        before = builds.checkout(self._wanted.before) if self._wanted.before else None
        wanted = self._wanted
        cases = serving.cases(wanted.serving_seconds, before, max(wanted.entities))
        for number in self._rounds():
            for subject, run in cases:
                self._do("serving", number, subject, run)

    def hits(self) -> None:
        entities = max(self._wanted.entities)
        for skew, prefetch in product(hits.SKEWS, (True, False)):
            subject = f"s = {skew}" + ("" if prefetch else ", without the other sources")
            self._do("hits", 1, subject, hits.hits, entities, skew, prefetch)

    def builds(self) -> None:
        backlog = self._main()
        few = self._backlog(self._wanted.ticks // 3, SYMBOLS)
        many = self._backlog(self._wanted.ticks, MEMORY_ENTITIES)
        mapped = produce(self._services, self._wanted.ticks, SYMBOLS, messages="mapped")
        # the build before may be one that reads plain fields only: then of the same ticks
        backlogs = {"before": backlog, "this build": mapped}
        pair = {"before": builds.checkout(self._wanted.before), "this build": THIS}
        for number in self._rounds():
            # the first of a pair finds other caches than the second: they take turns
            for name in sorted(pair, reverse=number % 2 == 0):
                do = partial(self._do, BUILDS, number)
                do(f"online worker: {name}", builds.worker_time, backlog, "online", pair[name])
                subject, nested = f"online worker, {NESTED}: {name}", backlogs[name]
                do(subject, builds.worker_time, nested, "online", pair[name])
                do(f"offline worker: {name}", builds.worker_time, few, "offline", pair[name])
                do(f"1 entity a request: {name}", builds.server_time, few, 1, pair[name])
                do(f"100 entities a request: {name}", builds.server_time, few, 100, pair[name])
                do(f"online, 5,000 ticks/s: {name}", builds.paced_time, pair[name])
                if number <= FEW_ROUNDS:
                    for sink in SINKS:
                        subject = f"{sink} worker, most memory: {name}"
                        do(subject, builds.worker_memory, many, sink, pair[name])

    def growth(self) -> None:
        most = max(self._wanted.entities)
        backlogs = [
            self._backlog(max(self._wanted.ticks, 3 * most), entities)
            for entities in self._wanted.entities
        ]
        pair = {"": THIS}
        if self._wanted.before:
            pair = {f", {growth.BEFORE}": builds.checkout(self._wanted.before), **pair}
        for number in range(1, min(FEW_ROUNDS, self._wanted.rounds) + 1):
            do = partial(self._do, "growth", number)
            for sink, backlog in product(self._wanted.sinks, backlogs):
                entities = f"{backlog.symbols:,} entities"
                for name in sorted(pair, reverse=number % 2 == 1):
                    subject = f"{sink} worker{name}, {entities}"
                    do(subject, growth.growth, backlog, sink, pair[name])
                if sink == "online":
                    for peer in (BYTEWAX, QUIX):
                        subject, seconds = f"{peer}, {entities}", self._wanted.peer_seconds
                        do(subject, growth.peer_growth, backlog, peer, seconds)

    def takeover(self) -> None:
        for number in self._rounds():
            do = partial(self._do, "takeover", number)
            do("worker, start to its first stored tick", takeover.start_up)
            do("worker killed and started again", takeover.killed_and_started)
            do("worker stopped and started again", takeover.stopped_and_started)
            do("one of two killed, not started again", takeover.killed_and_replaced)
            do("one of two stopped, not started again", takeover.handed_over)
            for broker in ("kafka", "tansu"):
                if broker == "kafka" and self._services.broker != "kafka":
                    continue
                do(f"`tickwell up` to a price over HTTP, {broker}", takeover.up, broker)

    def files(self) -> None:
        rows = self._wanted.file_rows
        few = files.write(self._services.place / "few.csv", 1_000)
        files.tickwell(self._services, few, 1_000)  # so that no compiler is in any figure
        file = files.write(self._services.place / "ticks.csv", rows)
        for number in range(1, min(FEW_ROUNDS, self._wanted.rounds) + 1):
            self._do("files", number, PRODUCE, files.tickwell, file, rows)
            self._do("files", number, CSV_PRODUCER, files.peer, file, rows)
        file.unlink()

    def views(self) -> None:
        for number in range(1, min(FEW_ROUNDS, self._wanted.rounds) + 1):
            for schemas in views.ROW_SCHEMAS:
                rows = self._wanted.view_rows
                self._do("views", number, f"{schemas} row schemas", views.views, schemas, rows)

    def search(self) -> None:
        for number in range(1, min(FEW_ROUNDS, self._wanted.rounds) + 1):
            self._do("search", number, f"{search.FEATURES:,} features", search.searches)

    def backfill(self) -> None:
        main = self._main()
        if not self._do("backfill", 1, OFFLINE, backfill.stored, main):
            return
        kafka = main.settings.kafka_connection
        for number in self._rounds():
            do = partial(self._do, "backfill", number)
            do(FIELDS, backfill.fields, main.ticks, False)
            do(BACKFILL, backfill.backfill, main.ticks)
            do(FIELDS_IN_ORDER, backfill.fields, main.ticks, True)
            do(BACKFILL_KAFKA, backfill.backfill, main.ticks, kafka)
        for number in range(1, min(FEW_ROUNDS, self._wanted.rounds) + 1):
            self._do("backfill", number, REPLAY, offline.replay, main)

    def applies(self) -> None:
        subjects = [applies.QUIET, applies.RECORDED, applies.COMMAND]
        for number in self._rounds():
            do = partial(self._do, "applies", number)
            # the first of a round finds other caches than the others: they take turns
            for subject in sorted(subjects, reverse=number % 2 == 0):
                do(subject, applies.freshness, self._wanted.latency_seconds, subject)
            if number <= FEW_ROUNDS:
                do(applies.FIRST_VALUE, applies.first_values, self._wanted.versions)

    def training(self) -> None:
        for number in range(1, min(FEW_ROUNDS, self._wanted.rounds) + 1):
            for rows in training.SIZES:
                self._do("training", number, f"{rows:,} entity rows", training.sets, rows)
            for rows, name in product(lake_sets.SIZES, lake_sets.SUBJECTS):
                subject = lake_sets.subject_of(name, rows)
                self._do("lake sets", number, subject, lake_sets.join, name, rows)

    def history(self) -> None:
        seconds = self._wanted.latency_seconds
        for number in self._rounds():
            for subject in sorted(history_work.SUBJECTS, reverse=number % 2 == 0):
                self._do("history", number, subject, history_work.freshness, seconds, subject)

    def _do(self, measure: str, number: int, subject: str, work: Any, *arguments: Any) -> bool:
        """Do one run, unless it is left out, and record it; whether it came to something."""
        if self._wanted.only is not None and not self._wanted.only.search(subject):
            return False
        do = partial(work, self._services, *arguments)
        return self._recorder.attempt(measure, subject, number, do)

    def _main(self) -> Backlog:
        return self._backlog(self._wanted.ticks, SYMBOLS)

    def _backlog(self, ticks: int, symbols: int, prices: Prices | None = None) -> Backlog:
        """A backlog, produced when it is first asked for."""
        key = (ticks, symbols, prices or self._wanted.prices)
        if key not in self._backlogs:
            self._backlogs[key] = produce(self._services, *key)
        return self._backlogs[key]

    def _rounds(self) -> range:
        return range(1, self._wanted.rounds + 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("measures", nargs="*", choices=(*MEASURES, BUILDS, "all"), default="all")
    parser.add_argument("--ticks", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prices", choices=("rounded", "full"), default="rounded")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--plot", type=Path, help="the picture of growth; in --out unless set")
    parser.add_argument("--peer-seconds", type=float, default=15.0, help="of each peer's run")
    parser.add_argument("--latency-seconds", type=float, default=30.0)
    parser.add_argument("--memory-ticks", type=int, default=10_000_000)
    parser.add_argument("--file-rows", type=int, default=10_000_000)
    parser.add_argument("--view-rows", type=int, default=1_000_000)
    parser.add_argument("--versions", type=int, default=applies.VERSIONS, help="of `applies`")
    parser.add_argument("--load-seconds", type=float, default=20.0)
    parser.add_argument("--serving-seconds", type=float, default=5.0, help="of each load")
    parser.add_argument(
        "--only", type=re.compile, metavar="REGEX", help="subjects in which it is found"
    )
    parser.add_argument("--entities", type=int, nargs="+", default=growth.ENTITIES)
    parser.add_argument("--sinks", nargs="+", default=SINKS, choices=SINKS, help="of `growth`")
    parser.add_argument(
        "--before",
        type=Path,
        help="an installed checkout (make install) that is measured too: builds, growth, serving",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes for all of these")
    wanted = parser.parse_args()
    if BUILDS in wanted.measures and not wanted.before:
        parser.error("builds needs --before: the checkout that this one is compared with")
    if wanted.quick:
        wanted.ticks, wanted.rounds, wanted.memory_ticks = 200_000, 1, 200_000
        wanted.peer_seconds, wanted.latency_seconds, wanted.load_seconds = 3.0, 5.0, 3.0
        wanted.entities, wanted.file_rows = [100, 10_000], 200_000
        wanted.serving_seconds, wanted.view_rows, wanted.versions = 1.0, 100_000, 5
    return wanted


if __name__ == "__main__":
    main()
