"""Which fault happens when, to whom: a function of the seed and the length, and of nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WORKERS = ("online-a", "online-b", "offline-a", "offline-b")
SERVERS = ("server-a", "server-b")
WARM = "redis-warm"
STORES = (WARM, "redis-hot", "postgres")
BROKER = "kafka"

MEAN_SECONDS = 2.6
"""Between two faults, where somebody is left to be hit."""

SETTLE_SECONDS = 4.0
"""At the beginning without faults, so that there is something to lose."""


@dataclass(frozen=True)
class Kind:
    """A class of faults: what is done, to whom, how often next to others.

    `down` is the range of seconds that the process stays away or paused, `recovery` how long the
    target is then left alone.
    """

    name: str
    targets: Sequence[str]
    weight: float
    down: tuple[float, float]
    recovery: float


KINDS = (
    Kind("worker killed", WORKERS, 5, (0, 3), 6),
    Kind("worker killed, away past its session", WORKERS, 1.5, (7, 10), 6),
    Kind("worker terminated", WORKERS, 3, (0, 2), 8),
    Kind("worker paused", WORKERS, 5, (0.2, 4), 1),
    Kind("worker paused past its session", WORKERS, 2.5, (7, 11), 4),
    Kind("server killed", SERVERS, 2.5, (0, 2), 3),
    Kind("server terminated", SERVERS, 1.5, (0, 2), 3),
    Kind("server paused", SERVERS, 2.5, (0.2, 8), 1),
    Kind("warm Redis killed", (WARM,), 3, (0, 3), 4),
    Kind("warm Redis restarted", (WARM,), 1.5, (0, 2), 4),
    Kind("warm Redis paused", (WARM,), 2.5, (0.2, 8), 2),
    Kind("hot Redis killed", ("redis-hot",), 2, (0, 3), 2),
    Kind("Postgres backend killed", ("postgres",), 2.5, (0, 0), 5),
    Kind("Postgres connections ended", ("postgres",), 2, (0, 0), 2),
    Kind("Postgres killed", ("postgres",), 2, (0, 3), 5),
    Kind("Postgres restarted", ("postgres",), 1.5, (0, 2), 5),
    Kind("Kafka killed", ("kafka",), 1, (0, 2), 14),
    Kind("Kafka restarted", ("kafka",), 0.7, (0, 2), 16),
    Kind("Kafka paused", ("kafka",), 1.5, (0.5, 9), 5),
)


@dataclass(frozen=True)
class Fault:
    """At `at` seconds after the beginning `kind` happens to `target`, for `down` seconds."""

    at: float
    kind: str
    target: str
    down: float

    def __str__(self) -> str:
        return f"{self.at:8.2f} s  {self.kind} ({self.target}, {self.down:.2f} s)"


def schedule(seed: int, seconds: float) -> list[Fault]:
    """The faults of a run, in order.

    A target is left alone until it has recovered. The broker's faults leave everybody without
    work, so they are rare.
    """
    return list(_faults(random.Random(f"{seed}/faults"), seconds))


def _faults(chance: random.Random, seconds: float) -> Iterator[Fault]:
    free_from = dict.fromkeys((*WORKERS, *SERVERS, *STORES, BROKER), 0.0)
    at = SETTLE_SECONDS
    while (at := at + chance.expovariate(1 / MEAN_SECONDS)) < seconds:
        possible = [
            (kind, target) for kind in KINDS for target in kind.targets if free_from[target] <= at
        ]
        if not possible:
            continue
        weights = [kind.weight / len(kind.targets) for kind, _ in possible]
        ((kind, target),) = chance.choices(possible, weights)
        down = chance.uniform(*kind.down)
        free_from[target] = at + down + kind.recovery
        yield Fault(at, kind.name, target, down)
