"""Changes of the registry while everything is hit: versions, what names mean, and who gives up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread

from sqlalchemy.exc import DBAPIError

from registry.database.engine import connect
from registry.definitions import Arm, Experiment
from registry.errors import NotAllowed, ViewBusy
from registry.formats.heartbeat import Heartbeat
from registry.heartbeats import read_heartbeats
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from registry.lifecycle.states import state_of, versions_of
from tests.chaos.warm import NO_REDIS, client_of

NAME = "price_sma_5"
MEAN_SECONDS = 3.0
"""Between two changes."""

MOST_VERSIONS = 12
PATIENCE = 3
"""Seconds that a store has to answer; it may be paused for longer."""

REFUSED = "refused"


class Unknown(Exception):
    """Nobody says what Redis has: a version that it lacks would be missing for readers."""


@dataclass
class Changes:
    """Changes one feature at random until it is stopped; `done` counts what happened."""

    postgres: str
    redis: str
    seed: int
    say: Callable[[str], None]
    cluster: bool = False
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = Event()
        self._chance = random.Random(f"{self.seed}/changes")
        self._experiments = 0
        self._engine = connect(
            self.postgres, connect_timeout=PATIENCE, statement_timeout_ms=PATIENCE * 1_000
        )
        self._registry = Registry(self._engine, By("chaos"), heartbeats=self._heartbeats)
        self._thread = Thread(target=self._work, name="changes")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._engine.dispose()

    def _work(self) -> None:
        while not self._stop.wait(self._chance.expovariate(1 / MEAN_SECONDS)):
            try:
                done = self._next()()
            except NotAllowed:
                done = REFUSED
            except (DBAPIError, ViewBusy, Unknown):
                done = "not answered"
            except Exception as error:
                self.failures.append(f"change of the registry: {error!r}")
                raise
            self.done[done] += 1
            self.say(f"registry: {done}")

    def _next(self) -> Callable[[], str]:
        """The next change; without a second version the others have nothing to change."""
        if not self.done["recorded"]:
            return self._create
        if not self.done["activated"]:
            return self._activate
        ways = [self._create, self._activate, self._back, self._give_up]
        # while an experiment runs its name cannot move, so it does not run for long
        ways += [self._start, self._stop_experiment, self._stop_experiment]
        return self._chance.choice(ways)

    def _create(self) -> str:
        known = versions_of(self._registry.catalog(), NAME)
        if len(known) >= MOST_VERSIONS:
            return REFUSED
        window = self._chance.randint(2, 40)
        schema = {"expression": f"mean(price, {window})"}
        self._registry.create_feature_version(NAME, f"{len(known) + 1}.0.0", schema, "1.0.0")
        return "recorded"

    def _activate(self) -> str:
        chosen = self._chance.choice(versions_of(self._registry.catalog(), NAME))
        self._registry.activate(chosen.ref, without_history=True)
        return "activated"

    def _back(self) -> str:
        self._registry.roll_back(NAME)
        return "rolled back"

    def _start(self) -> str:
        """An experiment of some versions, or other weights for the one that runs."""
        known = self._registry.catalog()
        running = known.experiments.get(NAME)
        if running is None:
            versions = [one.version for one in versions_of(known, NAME)]
            chosen = self._chance.sample(versions, min(len(versions), self._chance.randint(2, 3)))
            if len(chosen) < 2:
                return REFUSED
            self._experiments += 1
            name = f"chaos_{self._experiments}"
        else:
            name, chosen = running.name, [arm.version for arm in running.arms]
        arms = [
            Arm(f"arm_{number}", version, self._chance.randint(1, 9))
            for number, version in enumerate(chosen)
        ]
        self._registry.start_experiment(Experiment(name, NAME, tuple(arms)))
        return "experiment started" if running is None else "experiment weighed anew"

    def _stop_experiment(self) -> str:
        running = self._registry.catalog().experiments.get(NAME)
        if running is None:
            return REFUSED
        winner = self._chance.choice([None, *(arm.variant for arm in running.arms)])
        self._registry.stop_experiment(running.name, winner, without_history=True)
        return "experiment stopped"

    def _give_up(self) -> str:
        known = self._registry.catalog()
        chosen = self._chance.choice(versions_of(known, NAME)).ref
        if state_of(known, chosen) == "deprecated":
            self._registry.retire(chosen)
            return "retired"
        self._registry.deprecate(chosen)
        return "deprecated"

    def _heartbeats(self) -> list[Heartbeat]:
        try:
            with client_of(self.redis, self.cluster, socket_timeout=PATIENCE) as client:
                return read_heartbeats(client)
        except (*NO_REDIS, OSError) as error:
            raise Unknown from error
