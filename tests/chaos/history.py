"""What is done to history while everything is hit: repairs, loads of files, exports, and questions.

The commands are processes that are killed at random, and go on when they are started again. The
questions are those of training sets; what was answered is kept, and judged at the end.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx

from tests.chaos.producers import SYMBOLS
from tests.checker.training_sets import FEATURES, Answer

OLD_TICKS = 6_000
OLD_FROM_MS = 1_700_000_000_000
OLD_SYMBOLS = SYMBOLS[:8]
DELAY = "250ms"
"""How long after its time a tick of a file is known."""

MEAN_SECONDS = 1.5
"""Between two commands."""

KILLED = 0.5
"""The part of the commands that is killed, after a moment of at most `KILL_SECONDS`."""

KILL_SECONDS = 4.0
COMMAND_SECONDS = 90.0
QUESTION_ROWS = 30
ANSWER_SECONDS = 20.0
SETTLED_NS = 2 * 10**9
"""Nanoseconds a moment is ago: servers answer what is known by a second ago."""

OLDEST_NS = 20 * 10**9
"""Nanoseconds that the last moment of a question is ago at most: what workers, while they start
again, have not stored yet is refused."""

FINAL_SECONDS = 180.0
"""For each of the last commands to have done what is left."""


def write_old_ticks(place: Path, seed: int) -> Path:
    """A file of prices of the past, in the order of their times; every third has a size."""
    chance, file = random.Random(f"{seed}/old"), place / "old.csv"
    at = OLD_FROM_MS
    with file.open("w", newline="") as lines:
        table = csv.writer(lines)
        table.writerow(["symbol", "price", "size", "ts", "seq"])
        for number in range(OLD_TICKS):
            at += chance.choice((1, 40, 900, 20_000))
            size = "" if number % 3 else chance.randint(1, 900)
            row = (chance.choice(OLD_SYMBOLS), chance.uniform(1, 999), size, at, number)
            table.writerow(row)
    return file


@dataclass
class History:
    """`environment` is that of the commands; `done` counts what came of each."""

    urls: Sequence[str]
    environment: Mapping[str, str]
    seed: int
    place: Path
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = Event()
        self.file = write_old_ticks(self.place, self.seed)
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
        self._commands = {
            "repair": ("repair", "price"),
            "load": ("replay", "--from", str(self.file), "--source", "price", "--delay", DELAY),
            "export": ("lake", "export", "--until", tomorrow),
        }
        self._began = time.time_ns()
        self._threads = [
            Thread(target=self._guarded, args=(work,), name=f"history {work.__name__}")
            for work in (self._work, self._ask)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def finish(self) -> None:
        """Do what is left, on stores that are well. Raises AssertionError where it is refused."""
        for name in self._commands:
            code = self._command(name, None, FINAL_SECONDS)
            assert code == 0, f"the last {name} ended with {code}: {self._log(name)}"
        assert (code := self._run("lake", ("lake", "verify"), None, FINAL_SECONDS)) == 0, (
            f"lake verify ended with {code}: {self._log('lake')}"
        )

    def verify(self) -> None:
        """All that is stored is what the ticks say, as the product sees it."""
        assert (code := self._run("verify", ("verify", "--full"), None, FINAL_SECONDS)) == 0, (
            f"verify ended with {code}: {self._log('verify')}"
        )

    def ask_again(self) -> list[tuple[Answer, Answer]]:
        """Each answer as of a moment, and what is answered now."""
        again = []
        for answer in self.answers:
            if answer.known_at is not None:
                deadline = time.monotonic() + FINAL_SECONDS
                while (now := self._answer(answer.rows, answer.known_at)) is None:
                    assert time.monotonic() < deadline, f"{answer.known_at} is refused: {self.done}"
                    time.sleep(0.5)
                again.append((answer, now))
        return again

    # ------------------------------------------------------------ the threads

    def _guarded(self, work: Callable[[random.Random], None]) -> None:
        try:
            work(random.Random(f"{self.seed}/{work.__name__}"))
        except Exception as error:
            self.failures.append(f"{work.__name__}: {error!r}")
            raise

    def _work(self, chance: random.Random) -> None:
        while not self._stop.wait(chance.expovariate(1 / MEAN_SECONDS)):
            name = chance.choice(["repair", "repair", "load", "export"])
            after = chance.uniform(0.5, KILL_SECONDS) if chance.random() < KILLED else None
            self._command(name, after, COMMAND_SECONDS)

    def _command(self, name: str, kill_after: float | None, seconds: float) -> int:
        return self._run(name, self._commands[name], kill_after, seconds)

    def _run(
        self, name: str, arguments: Sequence[str], kill_after: float | None, seconds: float
    ) -> int:
        with (self.place / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tickwell", *arguments],
                env={"PATH": os.environ["PATH"], **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                code = process.wait(seconds if kill_after is None else kill_after)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        came = {0: "done", -9: "killed"}.get(code, f"ended with {code}")
        self.done[f"{name} {came}"] += 1
        self.say(f"history: {name} {came}")
        return code

    def _log(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text(errors="replace")[-600:]

    def _ask(self, chance: random.Random) -> None:
        while not self._stop.wait(chance.expovariate(1.0)):
            now = time.time_ns() - chance.randint(SETTLED_NS, OLDEST_NS)
            rows = []
            for _ in range(QUESTION_ROWS):
                at = chance.randint(self._began, max(self._began + 1, now))
                rows.append((chance.choice(SYMBOLS), at // 1_000 * 1_000))
            known = max(now, self._began) // 1_000 * 1_000 if chance.random() < 0.6 else None
            answer = self._answer(rows, known)
            if answer is not None:
                self.answers.append(answer)

    def _answer(self, rows: Sequence[tuple[str, int]], known_at: int | None) -> Answer | None:
        body: dict[str, Any] = {
            "features": list(FEATURES),
            "entities": [{"symbol": symbol} for symbol, _ in rows],
            "timestamps": [_text(at) for _, at in rows],
            "event_times": True,
        }
        if known_at is not None:
            body["as_known_at"] = _text(known_at)
        kind = "served" if known_at is None else "as known"
        try:
            url = f"{self.urls[len(self.answers) % len(self.urls)]}/features/offline"
            found = httpx.post(url, json=body, timeout=ANSWER_SECONDS)
        except httpx.TransportError:
            self.done[f"set {kind} not answered"] += 1
            return None
        if found.status_code != 200:
            self.done[f"set {kind} refused"] += 1
            if found.status_code < 500 and found.status_code not in (409, 422, 429):
                raise AssertionError(f"{found.status_code}: {found.text[:500]}")
            self.say(f"history: a set is refused: {found.text[:300]}")
            return None
        self.done[f"set {kind} answered"] += 1
        features = json.loads(found.content)["features"]
        cells = {
            name: list(zip(*(of[c] for c in ("values", "statuses", "event_times")), strict=True))
            for name, of in features.items()
        }
        return Answer(known_at, tuple(rows), cells)


def _text(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1_000:06d}Z"
