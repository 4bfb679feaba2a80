"""Reads what rejected ticks of a source ask for, by the rules that held at their offsets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pipelines.errors import Stopped
from pipelines.repair.edits import REASONS, Edit, NoEdit, RejectedTick, TickOrigin, edit_of
from pipelines.repair.errors import UnreadableFormat
from pipelines.replay.stop import Stop
from pipelines.stores.postgres.connection import Database
from pipelines.ticks.source_reading import Reading
from registry.definitions import Catalog
from registry.resources import sql
from registry.source_rules import SourceRules

CANDIDATES, PENDING = sql(__package__, "candidates"), sql(__package__, "pending")

MOST_EDITS = 200_000
"""Rejected ticks that one repair takes, or a few more; the next one takes others."""

CANDIDATES_A_PAGE = 5_000

BEFORE_ALL: dict[str, Any] = {
    "after_known_at": -1,
    "after_partition": -1,
    "after_offset": -1,
    "after_index": -1,
    "after_topic_id": "00000000-0000-0000-0000-000000000000",
}
"""The place of a candidate before the first one."""


class Chosen(NamedTuple):
    """Which rejected ticks a repair takes; the moments are nanoseconds UTC, of their records."""

    entities: frozenset[str] = frozenset()
    """All, where there is none."""
    kinds: frozenset[str] = frozenset({"insert", "cancel", "correct"})
    since: int = 0
    until: int = 2**63 - 1


class RejectedEdits:
    """The edits of one source; rejected ticks are read so many at a time."""

    def __init__(self, catalog: Catalog, source: str, page: int = CANDIDATES_A_PAGE) -> None:
        """Raises `UnreadableFormat`."""
        definition = catalog.sources[source]
        if definition.format != "json":
            raise UnreadableFormat(source, definition.format)
        self._topic = definition.topic
        self._rules = SourceRules.of(catalog, source)
        self._page = page
        self._readings: dict[int, Reading] = {}

    def chosen(
        self, database: Database, chosen: Chosen, unreadable: Callable[[str], None], stop: Stop
    ) -> Iterator[Edit]:
        """The edits that are asked for, read some at a time, in transactions of their own.

        `unreadable` is told why what asks for nothing cannot be read. Raises `Stopped`.
        """
        taken, after = 0, BEFORE_ALL
        while taken < MOST_EDITS:
            if stop.is_set():
                raise Stopped("nothing was begun")
            with database.transaction() as cursor:
                cursor.execute(CANDIDATES, {**self._asked(chosen), **after})
                rows = cursor.fetchall()
            if not rows:
                return
            for row in rows:
                try:
                    edit = self._edit(row)
                except NoEdit as error:
                    unreadable(str(error))
                    continue
                if edit is None or edit.kind not in chosen.kinds:
                    continue
                if not chosen.entities or edit.entity in chosen.entities:
                    taken += 1
                    yield edit
            topic_id, partition, offset, element, *_, known_at = rows[-1]
            of_last = known_at, partition, offset, element, topic_id
            after = dict(zip(BEFORE_ALL, of_last, strict=True))

    def pending(self, cursor: Any, repair: int, entity: str, most: int) -> list[Edit]:
        """The first edits of an entity that a repair takes and that were not made yet."""
        cursor.execute(PENDING, {"repair": repair, "entity": entity, "most": most})
        found = [self._edit(row) for row in cursor.fetchall()]
        return [edit for edit in found if edit is not None]  # each was one when the repair began

    def _asked(self, chosen: Chosen) -> dict[str, Any]:
        return {
            "topic": self._topic,
            "reasons": [r for r, kinds in REASONS.items() if chosen.kinds.intersection(kinds)],
            "since": chosen.since,
            "until": chosen.until,
            "most": self._page,
        }

    def _edit(self, row: Any) -> Edit | None:
        """The edit of a row of `candidates.sql`, if it is one. Raises `NoEdit`."""
        topic_id, partition, offset, element, reason, key, value, known_at = row
        origin = TickOrigin(topic_id, partition, offset, element)
        raw_key, raw_value = (None if one is None else bytes(one) for one in (key, value))
        rules = self._rules.at(bytes.fromhex(topic_id.replace("-", "")), partition, offset)
        if rules.id not in self._readings:
            self._readings[rules.id] = Reading.of(rules.source)
        rejected = RejectedTick(origin, reason, raw_key, raw_value, known_at)
        return edit_of(rejected, self._readings[rules.id])
