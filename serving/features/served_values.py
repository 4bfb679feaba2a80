"""What an answer said, with the rows that it was made of, for the log of served values.

Values and statuses are taken from what was sent, and rows from what was read for it; nothing is
read or computed again. So a mistake of either way to an answer, the prepared one and the reader's,
is in the log as clients have seen it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import msgspec
from msgspec import Struct

from registry.definitions import FeatureVersion
from registry.formats.row import Row, unpack
from registry.formats.served_log import Served, ServedRow, ServedValue, bits_of
from registry.formats.status import Status
from serving.features.lookup import Names
from serving.features.plan import Entity, Recipe, StoredRecipe
from serving.features.prepared import PreparedQuestion
from serving.features.reader import Answer, Evaluated
from serving.features.table import NOT_OF_KIND, AnswerTable, ListedColumn
from serving.features.values import TIER_NAMES, Moment
from serving.stores.row_store import RowId, Tier, TieredRows, Unavailable

MOST_VALUES = 500
"""Values of a request that are noted."""

MOST_ROWS = 2_000
"""Rows that are noted of them together, each as often as a value is made of it."""

STATUSES = list(Status)
"""By their ranks."""


class Told(NamedTuple):
    """A value as an answer told it."""

    which: int
    """Which of the entities of the request has it."""
    name: str
    """The feature, as it was requested."""
    value: float
    """NaN where there is none."""
    status: Status
    tier: str | None


class _Results(Struct):
    """An answer about many entities, as objects."""

    results: list[Answer]


_decode_one = msgspec.json.Decoder(Answer).decode
_decode_many = msgspec.json.Decoder(_Results).decode


def told_one(answer: bytes) -> Iterator[Told]:
    """What the answer about one entity tells."""
    yield from _told_objects([_decode_one(answer)])


def told_many(answer: bytes, table: AnswerTable | None = None) -> Iterator[Told]:
    """What an answer about many entities tells: as objects, or as the table it is written of."""
    if table is None:
        yield from _told_objects(_decode_many(answer).results)
    else:
        yield from _told_table(table)


def told_columns(columns: Mapping[str, ListedColumn]) -> Iterator[Told]:
    """What an answer tells that is written of columns, and names no tiers."""
    for index in range(len(next(iter(columns.values())).ranks)):
        for name, column in columns.items():
            status = STATUSES[column.ranks[index]]
            yield Told(index, name, column.values[index], status, None)


def _told_table(table: AnswerTable) -> Iterator[Told]:
    for index in range(len(next(iter(table.times.values())))):
        for name, column in table.features.items():
            rank = int(column.ranks[index])
            if rank != NOT_OF_KIND:
                tier = TIER_NAMES[table.tiers[column.times][index]]
                yield Told(index, name, float(column.values[index]), STATUSES[rank], tier)


def _told_objects(answers: Sequence[Answer]) -> Iterator[Told]:
    for index, answer in enumerate(answers):
        for name, found in answer.features.items():
            value = math.nan if found.value is None else found.value
            yield Told(index, name, value, found.status, found.tier)


class ReadRow(NamedTuple):
    """A row that was read, and what tells it from the others of the request."""

    key: Hashable
    id: RowId
    row: Row | Unavailable | None
    tier: Tier


class Read(Protocol):
    """What was read for an answer."""

    def feature(self, index: int, name: str) -> FeatureVersion:
        """The version that a requested name means for one of the entities."""
        ...

    def entity(self, index: int) -> Entity:
        """An entity as the request named it."""
        ...

    def rows(self, index: int, name: str) -> Iterator[ReadRow]:
        """The rows that the value of the entity is made of."""
        ...


class PreparedPart(NamedTuple):
    """Entities of one kind, as texts, and their rows in each source of the question."""

    question: PreparedQuestion
    entities: Sequence[bytes]
    which: Sequence[int]
    """Which of the entities of the request they are."""
    rows: Sequence[TieredRows]


class ReadByNames:
    """What was read for prepared questions."""

    def __init__(self, names: Names, parts: Sequence[PreparedPart]) -> None:
        self._names = names
        self._part = {
            index: (part, number) for part in parts for number, index in enumerate(part.which)
        }
        self._known: dict[int, tuple[Entity, list[ReadRow]]] = {}

    def feature(self, index: int, name: str) -> FeatureVersion:
        return self._part[index][0].question.versions[name]

    def entity(self, index: int) -> Entity:
        return self._of(index)[0]

    def rows(self, index: int, name: str) -> Iterator[ReadRow]:
        sources = _sources(self._names, self.feature(index, name))
        return (row for row in self._of(index)[1] if row.id.source in sources)

    def _of(self, index: int) -> tuple[Entity, list[ReadRow]]:
        """An entity, and its row in each source."""
        if index not in self._known:
            part, number = self._part[index]
            entity: Entity = msgspec.json.decode(part.entities[number])
            rows = []
            for row, read in zip(part.question.row_ids(entity), part.rows, strict=True):
                packed = read.rows[number]
                kept = unpack(packed) if isinstance(packed, bytes) else packed
                rows.append(ReadRow((index, row.source), row, kept, read.tier_of(number)))
            self._known[index] = entity, rows
        return self._known[index]


class ReadByReader:
    """What the general reader has read."""

    def __init__(self, evaluated: Evaluated) -> None:
        self._evaluated = evaluated

    def feature(self, index: int, name: str) -> FeatureVersion:
        evaluated = self._evaluated
        return evaluated.recipes[evaluated.answers[index].values[name]].feature

    def entity(self, index: int) -> Entity:
        return self._evaluated.answers[index].entity

    def rows(self, index: int, name: str) -> Iterator[ReadRow]:
        evaluated = self._evaluated
        recipe = evaluated.recipes[evaluated.answers[index].values[name]]
        for id in self._ids(recipe):
            yield ReadRow(id, id, evaluated.rows[id], evaluated.row_tiers[id])

    def _ids(self, recipe: Recipe) -> Iterator[RowId]:
        if isinstance(recipe, StoredRecipe):
            yield recipe.row
            return
        sources = _sources(self._evaluated.names, recipe.feature)
        for rows in recipe.entities or ():
            for source, row in rows.items():
                if source in sources:
                    yield row


def _sources(names: Names, feature: FeatureVersion) -> set[str | None]:
    """The sources that a feature is made of, the one that it sums over among them."""
    if not feature.derived:
        return {feature.source}
    parts = names.derived[feature.ref].parts.values()
    return {feature.over, *(part.source for part in parts)}


def record_of(
    told: Iterator[Told], read: Read, moment: Moment, request_id: str | None = None
) -> Served:
    """What an answer told that was judged for a moment.

    The first value for which there is no room in a record is left out, and all that follow.
    """
    values: list[ServedValue] = []
    numbers: dict[Hashable, int] = {}
    rows: list[ServedRow] = []
    left_out, room = 0, MOST_ROWS
    for one in told:
        made_of = list(islice(read.rows(one.which, one.name), room + 1))
        room -= len(made_of)
        if room < 0 or len(values) == MOST_VALUES:
            left_out = 1 + sum(1 for _ in told)
            break
        for row in made_of:
            if row.key not in numbers:
                numbers[row.key] = len(rows)
                rows.append(_noted(row, moment))
        value = ServedValue(
            feature=read.feature(one.which, one.name).ref,
            entity=dict(read.entity(one.which)),
            status=one.status,
            tier=one.tier,
            bits=None if math.isnan(one.value) else bits_of(one.value),
            rows=tuple([numbers[row.key] for row in made_of]),
        )
        values.append(value)
    return Served(moment.now_ns, request_id, tuple(values), tuple(rows), left_out)


def _noted(read: ReadRow, moment: Moment) -> ServedRow:
    tier = Tier.NONE if isinstance(read.row, Unavailable) else read.tier
    row = read.row if isinstance(read.row, Row) else None
    return ServedRow(
        source=read.id.source,
        entity=read.id.entity,
        tier=TIER_NAMES[tier],
        lagging=moment.lagging(read.id.source, read.tier),
        schema_id=None if row is None else row.schema_id,
        origin=None if row is None else row.origin,
    )
