"""A history that is in Postgres, in a lake, and in both, and what it says of any question.

All rows are kept in memory before some are taken away, so what they say does not depend on where
they are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry.definitions import Catalog, FeatureVersion
from registry.formats.lake import DAY_NS, day_of
from tests.support.backfills import Tick, blocks
from tests.support.lakes import exported
from tests.support.past import Cell
from tests.support.rebuilds import Stores
from tests.support.sinks import query

NOBODY = "00000000-0000-0000-0000-000000000000"
CANCELLED = 3

SOME_LATER = (
    "UPDATE tickwell.feature_rows SET known_at = known_at + %s"
    " WHERE abs(hashint8(event_time + %s)) %% %s = 0"
)
REVISED = """
INSERT INTO tickwell.feature_rows
SELECT schema_id, entity, event_time, sequence, %s, tick_time, seq,
    CASE WHEN abs(hashint8(event_time + %s)) %% 3 = 0 THEN 3 ELSE op END, fields,
    (SELECT array_agg(feature + %s ORDER BY place) FROM unnest(features) WITH ORDINALITY
        AS of (feature, place)),
    status, known_at + %s, topic_id, partition, "offset", index, seq_text
FROM tickwell.feature_rows
WHERE revision = 0 AND schema_id > 0 AND abs(hashint8(event_time + %s)) %% 4 = 0
"""
LOADED = """
INSERT INTO tickwell.feature_rows
SELECT -schema_id, entity,
    event_time + CASE WHEN abs(hashint8(event_time + %s)) %% 4 = 0 THEN 500 ELSE 0 END,
    sequence + abs(hashint8(event_time + %s)) %% 2, 0, tick_time, seq, op, fields,
    (SELECT array_agg(feature + 0.5 ORDER BY place) FROM unnest(features) WITH ORDINALITY
        AS of (feature, place)),
    status, known_at + %s, topic_id, partition, "offset", index, seq_text
FROM tickwell.feature_rows
WHERE revision = 0 AND schema_id = %s AND abs(hashint8(event_time + %s)) %% 2 = 1
"""
TICKED_AGAIN = """
INSERT INTO tickwell.feature_rows
SELECT schema_id, entity, event_time + 700, sequence, 0, tick_time, seq, op, fields, features,
    status, known_at, topic_id, partition, "offset", index, seq_text
FROM tickwell.feature_rows
WHERE event_time >= %s AND event_time < %s AND revision = 0
    AND schema_id = (SELECT min(id) FROM tickwell.row_schemas WHERE source = 'price')
LIMIT 1
ON CONFLICT DO NOTHING
"""
ALL_ROWS = """
SELECT schema_id, entity, event_time, sequence, revision, op, known_at, row.features, status
FROM tickwell.feature_rows AS row
JOIN tickwell.row_schemas AS schema ON schema.id = abs(row.schema_id)
WHERE schema.source = 'price'
"""


class SplitHistory:
    """The history of the price source, which `edit` and `split` change and move about."""

    def __init__(self, stores: Stores, lake: Path, chance: random.Random) -> None:
        self._stores = stores
        self._lake = lake
        self._chance = chance
        self.rows: list[tuple[Any, ...]] = []

    def edit(self) -> None:
        """Have some ticks known late, some repaired, some loaded from files."""
        chance, execute = self._chance, self._stores.execute
        hours = 3_600 * 10**9
        for _ in range(2):
            late = chance.choice([10**6, hours, 30 * hours])
            execute(SOME_LATER, late, chance.randrange(10**6), chance.choice([2, 4]))
        schemas = query(
            self._stores.postgres, "SELECT id FROM tickwell.row_schemas WHERE source = 'price'"
        )
        schema = chance.choice([number for (number,) in schemas])
        seeds = [chance.randrange(10**6) for _ in range(3)]
        execute(LOADED, *seeds[:2], chance.choice([-hours, 0, 30 * hours]), schema, seeds[2])
        execute(
            "INSERT INTO tickwell.loads (id, source, schema_id, rules, files, mapping, began_by)"
            " VALUES (gen_random_uuid(), 'price', %s, 1, '[]', '{}', 'ann')",
            schema,
        )
        for revision in (1, 2):
            later = chance.randrange(1, 40 * hours)
            seed = chance.randrange(10**6)
            execute(REVISED, revision, chance.randrange(10**6), revision, later, seed)
        self._change([int(row[2]) // DAY_NS for row in self._read()])

    def export(self) -> None:
        """Export all of it."""
        exported(self._stores.postgres, self._lake, rows=5)
        self.rows = self._read()

    def drop_all(self) -> None:
        """Have Postgres let go of all days."""
        for day in {int(row[2]) // DAY_NS for row in self.rows}:
            self._drop(day)

    def split(self) -> None:
        """Export, then have days change, lose files, and be dropped by Postgres."""
        chance, postgres = self._chance, self._stores.postgres
        exported(postgres, self._lake, rows=chance.choice([3, 40]))
        of_loads = "SELECT coalesce(sum(rows), 0) FROM tickwell.lake_files WHERE schema_id < 0"
        assert query(postgres, of_loads) == [(sum(row[0] < 0 for row in self._read()),)]
        days = sorted({int(row[2]) // DAY_NS for row in self._read()})
        what = {day: chance.choice(["", "", "dirty", "gone", "other", "dropped"]) for day in days}
        for day, happened in what.items():
            paths = query(
                postgres, "SELECT path FROM tickwell.lake_files WHERE day = %s", day_of(day)
            )
            files = [self._lake / path for (path,) in paths]
            often = {"dirty": 1.0, "dropped": 0.8}.get(happened, 0.2)
            if chance.random() < often:
                self._tick_again(day)
            if happened == "gone" and files:
                files[0].unlink()
            elif happened == "other" and files:
                files[0].write_bytes(files[0].read_bytes() + b"more")
        self.rows = self._read()
        for day, happened in what.items():
            if happened == "dropped":
                self._drop(day)

    def _read(self) -> list[tuple[Any, ...]]:
        return [(*row[:-1], bytes(row[-1])) for row in query(self._stores.postgres, ALL_ROWS)]

    def _change(self, days: Sequence[int]) -> None:
        changed = "SELECT tickwell.change_days('price', 'test', %s, 0, %s)"
        self._stores.execute(changed, NOBODY, sorted(set(days)))

    def _tick_again(self, day: int) -> None:
        """A late tick that Postgres has and the files have not."""
        self._stores.execute(TICKED_AGAIN, day * DAY_NS, (day + 1) * DAY_NS)
        self._change([day])

    def _drop(self, day: int) -> None:
        """Take rows of a day away, but for some that Postgres keeps."""
        within = day * DAY_NS, (day + 1) * DAY_NS
        execute, of_day = self._stores.execute, ("price", day_of(day))
        execute(
            "UPDATE tickwell.lake_days SET dropped_at = now() WHERE source = %s AND day = %s",
            *of_day,
        )
        execute(
            "DELETE FROM tickwell.feature_rows WHERE event_time >= %s AND event_time < %s"
            " AND abs(schema_id) IN (SELECT id FROM tickwell.row_schemas WHERE source = 'price')"
            " AND abs(hashint8(event_time)) %% 3 > 0 AND NOT event_time %% 1000 = 700",
            *within,
        )
        execute(
            "DELETE FROM tickwell.backfilled_blocks"
            " WHERE first_event_time >= %s AND last_event_time < %s",
            *within,
        )


class Searched:
    """What rows say, searched from end to end for each question."""

    def __init__(self, postgres: str, catalog: Catalog, rows: Sequence[tuple[Any, ...]]) -> None:
        """Of backfilled values those count that `blocks` have, at first those that are there."""
        self._catalog = catalog
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        for row in rows:
            self._rows.setdefault(row[1], []).append(row)
        self.blocks = {ref: blocks(postgres, ref) for ref in catalog.features}

    def cell(self, ref: str, entity: str, moment: int, known: int, repaired: bool) -> Cell:
        """The bits of a value, its status and its event time."""
        newest = self._newest(entity, moment, known, repaired)
        if not newest:
            return None, "missing", None
        version, (time, sequence) = self._catalog.features[ref], newest[0][2:4]
        for schema, *_, values, statuses in newest:
            features = self._catalog.schemas[abs(schema)].features
            if ref in features:
                index = features.index(ref)
                return _judged(version, values[index], statuses[index], time, moment)
        block = self.blocks[ref].get(Tick(entity, time, sequence))
        is_live = any(row[0] > 0 for row in newest) and newest[0][4] == 0
        if block is None or not is_live:
            return None, "missing", None
        return _judged(version, float.fromhex(block[0]), block[1], time, moment)

    def _newest(
        self, entity: str, moment: int, known: int, repaired: bool
    ) -> list[tuple[Any, ...]]:
        seen = [row for row in self._rows.get(entity, ()) if row[2] <= moment and row[6] <= known]
        if repaired:
            gone = {row[2:4] for row in seen if row[4] > 0 and row[5] == CANCELLED}
            seen = [row for row in seen if row[2:4] not in gone]
        else:
            seen = [row for row in seen if row[4] == 0]
        last = max(map(_ordered, seen), default=None)
        of_tick = [row for row in seen if _ordered(row) == last]
        best = max(map(_rank, of_tick), default=None)
        return sorted(row for row in of_tick if _rank(row) == best)


def _ordered(row: tuple[Any, ...]) -> tuple[int, bool, int]:
    """Of one time the ticks from Kafka come after loaded ones, whatever their sequences are."""
    return row[2], row[0] > 0, row[3]


def _rank(row: tuple[Any, ...]) -> tuple[bool, int, int]:
    return (True, row[6], row[4]) if row[4] else (False, 0, 0)


def _judged(version: FeatureVersion, value: float, status: int, time: int, moment: int) -> Cell:
    said = ["ok", "warming", "undefined", "missing"][status]
    if said == "ok" and version.max_age_ns is not None and moment - time > version.max_age_ns:
        said = "stale"
    return (float(value).hex() if said in ("ok", "stale") else None), said, time
