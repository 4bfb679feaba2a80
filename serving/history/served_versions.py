"""Which version a feature's name meant at a moment: what was served then, not what is active now.

    activations ──┐
    experiments ──┴──► the meanings of a name, each from a moment on ──► a version a row

An experiment decides by the row's entity (`registry.experiments.arm_of`), with the weights that it
had at the row's moment, which the audit keeps. What one decided by consumer is not known of a row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from registry.definitions import Experiment
from registry.experiments import arm_of
from registry.resources import sql
from serving.errors import InvalidRequest
from serving.features.times import to_rfc_3339
from serving.history.entity_rows import FIRST_MOMENT, LAST_MOMENT, Int64s
from serving.history.past_columns import Served
from serving.history.snapshot import Snapshot

MOVES = sql(__package__, "moves_of_names")

AS_SERVED = "as_served"
"""What stands for a version where each row has the one that was served."""

Meaning = str | Experiment | None
"""The number of a version, the experiment that decides, or nothing."""


class Meanings(NamedTuple):
    """What a feature's name meant: each meaning from one moment up to the next one's."""

    name: str
    starts: Sequence[int]
    """Nanoseconds UTC, the first one before all moments."""
    means: Sequence[Meaning]

    @property
    def versions(self) -> list[str]:
        """The numbers of the versions that it meant for anybody."""
        found: dict[str, None] = {}
        for meaning in self.means:
            if isinstance(meaning, Experiment):
                found.update((arm.version, None) for arm in meaning.arms)
            elif meaning is not None:
                found[meaning] = None
        return list(found)

    def served(
        self, moments: Int64s, entities: Sequence[str], entity: NDArray[np.int32], first: int = 0
    ) -> Served:
        """The version of each row: its moment, and which of the entities it is about.

        Raises `InvalidRequest` where that depended on who asked; rows are counted from `first`.
        """
        versions = self.versions
        which = np.full(len(moments), -1, np.int32)
        for (start, end), meaning in zip(
            pairwise([*self.starts, LAST_MOMENT + 1]), self.means, strict=True
        ):
            then = np.flatnonzero((moments >= start) & (moments < end))
            if not len(then) or meaning is None:
                continue
            if isinstance(meaning, Experiment):
                if meaning.by == "consumer":
                    raise self._unknown(meaning, first + int(then[0]), int(moments[then[0]]))
                arms = {
                    number: versions.index(arm_of(meaning, entities[number]).version)
                    for number in np.unique(entity[then]).tolist()
                }
                which[then] = [arms[number] for number in entity[then].tolist()]
            else:
                which[then] = versions.index(meaning)
        return Served(versions, which)

    def _unknown(self, experiment: Experiment, row: int, moment: int) -> InvalidRequest:
        pins = " or ".join(f"{self.name}@{arm.version}" for arm in experiment.arms)
        return InvalidRequest(
            f"{self.name} in row {row}, at {to_rfc_3339(moment)}, was decided by the experiment "
            f"{experiment.name} for each consumer, and a row says of none: pin {pins}",
            feature=self.name,
        )


def meanings(snapshot: Snapshot, features: Collection[str]) -> dict[str, Meanings]:
    """What the names of these features meant, by these names. Raises `InvalidRequest`."""
    moves: dict[str, list[Move]] = {name: [] for name in features}
    for name, kind, at, what in snapshot.rows(MOVES, {"names": list(features)}):
        moves[name].append(Move(kind, int(at), what))
    running = snapshot.catalog.experiments
    return {name: _meanings(name, found, running.get(name)) for name, found in moves.items()}


class Move(NamedTuple):
    """What moved the meaning of a name: as `moves_of_names.sql` says."""

    kind: str
    at: int
    """Nanoseconds UTC."""
    what: object


def _meanings(name: str, moves: Sequence[Move], runs: Experiment | None) -> Meanings:
    starts, means = [FIRST_MOMENT], list[Meaning]([None])
    active: str | None = None
    running: Experiment | None = None
    for kind, at, what in moves:
        if kind == "activation":
            active = str(what)
        elif kind == "experiment":
            running = msgspec.convert(what, Experiment)
        else:
            _check_told(name, running, msgspec.convert(what, Experiment))
            running = None
        meaning: Meaning = active if running is None else running
        if meaning != means[-1]:
            starts.append(at)
            means.append(meaning)
    _check_told(name, running, runs)
    return Meanings(name, starts, means)


def _check_told(name: str, told: Experiment | None, recorded: Experiment | None) -> None:
    """Raises `InvalidRequest` where the audit has not all that an experiment decided by."""
    if told != recorded:
        one = recorded or told
        assert one is not None
        raise InvalidRequest(
            f"the audit does not say all of how the experiment {one.name} ran, so which versions "
            f"{name} meant is not known: pin one",
            feature=name,
        )
