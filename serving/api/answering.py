"""From the bodies of requests to the bytes of answers.

What was asked before is prepared, and answered from rows that are read for all requests of a
moment. The general reader, which defines the answers, takes what is not prepared.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from registry.definitions import Source
from registry.formats.status import Status
from serving.api.arrow import arrow
from serving.api.asked import Asked, AskedBefore, AskedEntity, Question, Questions
from serving.api.compact import compact
from serving.api.memo import TimeTexts
from serving.api.objects import RESULTS, RESULTS_END
from serving.errors import NotReady
from serving.features.columns import AnswerColumns, answer_columns
from serving.features.lookup import Names
from serving.features.plan import Entity
from serving.features.prepared import PreparedQuestion, Uncommon
from serving.features.reader import Evaluated, Reader, answers_of
from serving.features.table import (
    AnswerTable,
    ListedColumn,
    evaluated_table,
    listed_entities,
    listed_table,
    prepared_table,
    several_kinds,
)
from serving.features.values import Moment
from serving.stores.row_store import UNAVAILABLE, NamedRows, Tier, TieredRows, Unavailable
from serving.watch.catalog import CatalogWatch
from serving.watch.workers import WorkersWatch

FEW = 12
"""Up to so many entities are answered one by one: columns have a cost of their own."""

DEADLINE_SECONDS = 5.0
"""Seconds that the reader may take: for each of its reads the store has one."""


STATUSES = list(Status)
"""By their ranks."""


class Form(Enum):
    """How an answer about many entities is written."""

    OBJECTS = "objects"
    COMPACT = "compact"
    ARROW = "arrow"


class Part(NamedTuple):
    """The entities of a request that are of one kind, and the question that is asked of them."""

    question: Question
    entities: Sequence[AskedEntity]
    which: Sequence[int]
    """Which of the entities of the request they are."""
    rows: Sequence[TieredRows] = ()
    """Their rows in each source of the question."""

    def wanted(self) -> list[tuple[str, Sequence[bytes]]]:
        """Each source of the question, and the names of the rows in it."""
        names = zip(*[entity.names for entity in self.entities], strict=True)
        return [(s.name, of) for s, of in zip(self.question.sources, names, strict=True)]


class Answering:
    """Answers requests from rows and, what is not prepared, from the reader.

    Without `rows` nothing is prepared. `served` counts values by status. Methods raise what the
    reader raises, `InvalidRequest` and `NotReady`.
    """

    def __init__(
        self,
        reader: Reader,
        rows: NamedRows | None,
        catalog: CatalogWatch,
        workers: WorkersWatch,
        served: Counter[str],
    ) -> None:
        self._reader = reader
        self._rows = rows
        self._catalog = catalog
        self._workers = workers
        self._served = served
        self._times = TimeTexts()
        self._asked = AskedBefore(rows, self._times)

    async def one(self, body: bytes) -> bytes:
        """The answer to an `OnlineRequest`."""
        asked = self._asked.one(self._catalog.names, body)
        questions, entity = asked.questions, asked.entities[0]
        if questions is not None:
            question = questions.each[0]
            on_time = self._on_time(question.sources)
            wanted = [(s.name, [n]) for s, n in zip(question.sources, entity.names, strict=True)]
            rows = await self._read(wanted)
            try:
                answer, statuses = _object(question, entity, 0, rows, _now(on_time))
            except Uncommon:
                pass
            else:
                self._count(statuses)
                return answer
        (found,) = answers_of(await self._evaluate(asked))
        return msgspec.json.encode(found)

    async def many(self, body: bytes, form: Form = Form.OBJECTS) -> bytes:
        """The answer to a `BatchRequest`."""
        asked = self._asked.batch(self._catalog.names, body)
        if asked.questions is not None:
            parts = _parts(asked.questions, asked.entities)
            on_time = self._on_time([s for part in parts for s in part.question.sources])
            rows = await self._read([one for part in parts for one in part.wanted()])
            try:
                return self._many(asked, _with_rows(parts, rows), _now(on_time), form)
            except Uncommon:
                pass
        evaluated = await self._evaluate(asked)
        if form is not Form.OBJECTS:
            return self._written(asked.entities, evaluated_table(evaluated, asked.features), form)
        return _objects(map(msgspec.json.encode, answers_of(evaluated)))

    @property
    def names(self) -> Names:
        """The names of today's catalog. Raises `NotReady` when there is none."""
        return self._catalog.names

    async def columns(
        self, names: Names, features: Sequence[str], entities: Sequence[Entity]
    ) -> dict[str, ListedColumn]:
        """What is known of entities, all of one kind, by the names that were requested."""
        asked = self._asked.parsed(names, features, entities)
        if asked.questions is not None:
            question = asked.questions.each[0]
            on_time = self._on_time(question.sources)
            of = zip(*[entity.names for entity in asked.entities], strict=True)
            wanted = [(s.name, named) for s, named in zip(question.sources, of, strict=True)]
            rows = await self._read(wanted)
            with suppress(Uncommon):
                listed = _listed(question.prepared, rows, _now(on_time))
                self._served.update(STATUSES[r] for column in listed.values() for r in column.ranks)
                return listed
        return listed_table(evaluated_table(await self._evaluate(asked), asked.features))

    async def _read(self, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[TieredRows]:
        assert self._rows is not None, "what is not read by names is not prepared"
        rows = await self._rows.named_rows(wanted)
        if isinstance(rows, Unavailable):
            return [TieredRows([UNAVAILABLE] * len(names), Tier.NONE) for _, names in wanted]
        return rows

    def _many(self, asked: Asked, parts: Sequence[Part], moment: Moment, form: Form) -> bytes:
        n = len(asked.entities)
        answers = [b""] * n
        if n <= FEW and form is Form.OBJECTS:
            counted: list[Status] = []
            for part in parts:
                for index, (which, entity) in enumerate(
                    zip(part.which, part.entities, strict=True)
                ):
                    found = _object(part.question, entity, index, part.rows, moment)
                    answers[which], statuses = found
                    counted += statuses
            self._count(counted)
            return _objects(answers)
        columns = [answer_columns(part.question.prepared, part.rows, moment) for part in parts]
        for part, of_part in zip(parts, columns, strict=True):
            self._count_columns(part.question, of_part)
        if form is not Form.OBJECTS:
            tables = [
                (part.which, prepared_table(part.question.prepared, of_part))
                for part, of_part in zip(parts, columns, strict=True)
            ]
            table = tables[0][1] if len(tables) == 1 else several_kinds(tables, asked.features)
            return self._written(asked.entities, table, form)
        if len(parts) == 1:
            return parts[0].question.form.many([e.text for e in asked.entities], columns[0])
        for part, of_part in zip(parts, columns, strict=True):
            each = part.question.form.each([e.text for e in part.entities], of_part)
            for which, answer in zip(part.which, each, strict=True):
                answers[which] = answer
        return _objects(answers)

    def _written(self, entities: Sequence[AskedEntity], table: AnswerTable, form: Form) -> bytes:
        if form is Form.COMPACT:
            return compact([entity.text for entity in entities], table, self._times)
        return arrow([msgspec.json.decode(entity.text) for entity in entities], table)

    def _count(self, statuses: Sequence[Status]) -> None:
        """Count served values: once all of an answer is known."""
        if statuses.count(Status.OK) == len(statuses):
            self._served[Status.OK] += len(statuses)
        else:
            self._served.update(statuses)

    def _count_columns(self, question: Question, columns: AnswerColumns) -> None:
        slots = [slot.value for slot in question.prepared.slots.values()]
        counts = np.bincount(columns.ranks[:, slots].ravel(), minlength=len(STATUSES)).tolist()
        self._served.update({status: n for status, n in zip(STATUSES, counts, strict=True) if n})

    async def _evaluate(self, asked: Asked) -> Evaluated:
        """What the reader says."""
        names, features, entities = asked.names, asked.features, asked.plain_entities()
        moment = partial(_now, self._on_time(names.catalog.sources.values()))
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                evaluated = await self._reader.evaluate(names, features, entities, moment)
        except TimeoutError:
            raise NotReady(
                f"no answer within {DEADLINE_SECONDS:g} s: ask for less, or again"
            ) from None
        for _, values in evaluated.answers:
            self._count([evaluated.parts[one].status for one in values.values()])
        return evaluated

    def _on_time(self, sources: Iterable[Source]) -> dict[str, float]:
        """Of each source up to when it is on time, Unix seconds.

        It is asked once of all rows, so that no answer contradicts itself, and before they are
        read: a worker may catch up meanwhile, and a row from before that would pass for one that is
        up to date.
        """
        return {source.name: self._workers.on_time_until(source.topic) for source in sources}


def _parts(questions: Questions, entities: Sequence[AskedEntity]) -> list[Part]:
    """The parts of a request, one for each kind of entity."""
    if len(questions.each) == 1:
        return [Part(questions.each[0], entities, range(len(entities)))]
    parts: list[Part] = []
    for kind, question in enumerate(questions.each):
        which = [index for index, entity in enumerate(entities) if entity.kind == kind]
        parts.append(Part(question, [entities[index] for index in which], which))
    return parts


def _with_rows(parts: Sequence[Part], rows: Sequence[TieredRows]) -> list[Part]:
    """The parts with their rows, which are those of the sources of one after the other."""
    found, begin = [], 0
    for part in parts:
        end = begin + len(part.question.sources)
        found.append(part._replace(rows=rows[begin:end]))
        begin = end
    return found


def _objects(answers: Iterable[bytes]) -> bytes:
    return RESULTS + b",".join(answers) + RESULTS_END


def _now(on_time: dict[str, float]) -> Moment:
    """The moment of an answer, once its rows are read."""
    now = time.time_ns()
    lagging = {source: now > until * 10**9 for source, until in on_time.items()}
    return Moment(now, lambda source, tier: lagging[source])


def _listed(
    prepared: PreparedQuestion, read: Sequence[TieredRows], moment: Moment
) -> dict[str, ListedColumn]:
    """The columns of a prepared question. Raises `Uncommon`."""
    count = len(read[0].rows)
    if count <= FEW:
        with suppress(Uncommon):  # columns take more
            each = [
                prepared.evaluate(
                    [of.rows[index] for of in read], [of.tier_of(index) for of in read], moment
                )
                for index in range(count)
            ]
            return listed_entities(prepared, each)
    return listed_table(prepared_table(prepared, answer_columns(prepared, read, moment)))


def _object(
    question: Question, entity: AskedEntity, index: int, read: Sequence[TieredRows], moment: Moment
) -> tuple[bytes, Sequence[Status]]:
    """The answer about one entity, and the statuses of its values; `index` is that of its rows.

    Raises `Uncommon`.
    """
    prepared, form = question.prepared, question.form
    rows, tiers = [of.rows[index] for of in read], [of.tier_of(index) for of in read]
    try:
        found = prepared.evaluate(rows, tiers, moment)
    except Uncommon:  # columns take more
        own = [TieredRows([row], tier) for row, tier in zip(rows, tiers, strict=True)]
        columns = answer_columns(prepared, own, moment)
        answer = form.many([entity.text], columns)[len(RESULTS) : -len(RESULTS_END)]
        ranks = columns.ranks[0].tolist()
        return answer, [STATUSES[ranks[slot.value]] for slot in prepared.slots.values()]
    statuses = [found.statuses[slot.value] for slot in prepared.slots.values()]
    return form.one(entity.text, found, moment.now_ns), statuses
