"""A sweep over the days of one source, in a snapshot of the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.resources import sql
from serving.history.lake.day_reader import DayReader, Reading
from serving.history.lake.days import Day, SourceDays, days_of, loaded_schemas
from serving.history.lake.elsewhere import SentParts, SweptSource
from serving.history.lake.questions import Questions, SpilledQuestions
from serving.history.lake.stored_rows import Schemas
from serving.history.lake.sweep import UNWATCHED, Part, Sweep, Watch, parts_of, sweep
from serving.history.snapshot import Snapshot

KNOWN_ENTITIES = sql(__package__, "known_entities")


class SourceSweep:
    """Answers questions about a source with what the ticks' rows say of `refs`, `name@version`.

    Of these, `complete` have a backfill that is complete. With `repaired` repairs count, else it is
    what was served. Raises `StoresUnavailable` for a lake that is needed and not known.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        source: str,
        refs: Collection[str],
        complete: Collection[str],
        repaired: bool,
    ) -> None:
        self._snapshot = snapshot
        own = [one for one in snapshot.catalog.schemas.values() if one.source == source]
        schemas = Schemas(
            [*loaded_schemas(snapshot, source), *sorted(one.id for one in own)],
            {one.id: tuple(one.features) for one in own},
        )
        limits = snapshot.lake.rows_at_once, snapshot.row_bytes
        self.reading = Reading(source, schemas, tuple(refs), frozenset(complete), repaired, *limits)
        self.of: SourceDays = days_of(snapshot, source)
        """The days that have ticks."""

    @property
    def days(self) -> list[Day]:
        """The days that have ticks, the oldest first."""
        return list(self.of.days.values())

    def parts(self, questions: Questions) -> list[Part]:
        """The parts in which questions are answered, each by itself."""
        return parts_of(questions.days())

    def run(
        self,
        names: Sequence[str],
        questions: Questions,
        parts: Sequence[Part],
        watch: Watch = UNWATCHED,
    ) -> None:
        """Answer the questions about the days of parts; entities are numbered as `names`.

        Raises `StoresUnavailable`, SQLAlchemy's `DBAPIError`, OSError and `Stopped`.
        """
        common = Sweep(self.days, self.known(names), len(self.reading.refs))
        elsewhere, shared = self._snapshot.lake.elsewhere, self._snapshot.shared
        if elsewhere is not None and shared is not None and isinstance(questions, SpilledQuestions):
            source = SweptSource(shared, self.reading, list(names), common)
            SentParts(elsewhere, source, questions).answer(parts, watch)
            return
        reader = DayReader(self.reading, names, self._copy)
        for part in parts:
            sweep(common, part, reader, questions, watch)

    def _copy(self, statement: str, parameters: Mapping[str, Any]) -> memoryview:
        return self._snapshot.copied(statement, [parameters])[0]

    def known(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """(e,) Of which of some entities the source has ever had a tick."""
        asked = {
            "source": self.reading.source,
            "numbers": list(range(len(names))),
            "entities": list(names),
        }
        known = np.zeros(len(names), np.bool_)
        known[[number for (number,) in self._snapshot.rows(KNOWN_ENTITIES, asked)]] = True
        return known
