"""From the bodies of requests to the bytes of answers.

What was asked before is prepared, and answered from rows that are read for all requests of a
moment. The general reader, which defines the answers, takes what is not prepared.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from registry.formats.consumer import UNNAMED
from registry.formats.status import RANK, Status
from serving.api.arrow import arrow
from serving.api.asked import Asked, AskedBefore
from serving.api.compact import compact
from serving.api.deadlines import NO_DEADLINE, Deadline
from serving.api.entity_answers import FEW, STATUSES, listed_of, now_of, object_of
from serving.api.forms import Form
from serving.api.known_answers import KnownAnswers, KnownBatches
from serving.api.memo import TimeTexts
from serving.api.noting import Noting
from serving.api.objects import AGE, RESULTS, RESULTS_END
from serving.api.parts import Part, with_rows
from serving.errors import StoresUnavailable
from serving.features.columns import AnswerColumns, answer_columns
from serving.features.lookup import Names
from serving.features.plan import Entity
from serving.features.prepared import Uncommon
from serving.features.reader import Evaluated, Reader, answers_of
from serving.features.served_values import told_columns, told_many, told_one
from serving.features.table import (
    AnswerTable,
    ListedColumn,
    evaluated_table,
    listed_table,
    prepared_table,
    several_kinds,
)
from serving.features.values import Moment
from serving.served_log import ServedLog
from serving.stores.breakers import Breakers
from serving.stores.row_store import UNAVAILABLE, NamedRows, Tier, TieredRows, Unavailable
from serving.usage import Read, Usage
from serving.watch.catalog import CatalogWatch
from serving.watch.workers import WorkersWatch

Consumer = Callable[[], str]
"""Says who asks, where an experiment depends on it."""


def nobody() -> str:
    """Of a request that does not say who asks."""
    return UNNAMED


class Asking(NamedTuple):
    """When a request has to be answered, its id, and who asks."""

    deadline: Deadline = NO_DEADLINE
    request_id: str | None = None
    consumer: Consumer = nobody


PLAINLY = Asking()


Answered = tuple[bytes, Sequence[Read]]
"""An answer, and what it counts for once it is given."""


class Records(NamedTuple):
    """Where it is noted what is served, and to whom."""

    log: ServedLog
    usage: Usage


class Answering:
    """Answers requests from rows and, what is not prepared, from the reader.

    Without `rows` nothing is prepared. `served` counts values by status, `breakers` are those of
    the stores, and of `records` the log notes what is served to one request in many. Methods raise
    what the reader raises, `InvalidRequest`, `NotReady`, `DeadlineMissed` and, where all values of
    an answer are unavailable, `StoresUnavailable`.
    """

    def __init__(
        self,
        reader: Reader,
        rows: NamedRows | None,
        catalog: CatalogWatch,
        workers: WorkersWatch,
        served: Counter[str],
        breakers: Breakers = tuple,
        records: Records | None = None,
    ) -> None:
        log, self._usage = records or Records(ServedLog(), Usage())
        self._reader = reader
        self._rows = rows
        self._catalog = catalog
        self._workers = workers
        self._served = served
        self._breakers = breakers
        self._noting = Noting(log)
        self._times = TimeTexts()
        self._asked = AskedBefore(rows, TimeTexts(AGE), usage=self._usage)
        self.known = KnownAnswers(self._asked, catalog, workers, served, self._noting)
        """The same of what was asked before, where nobody has to wait for rows."""
        self.known_batches = KnownBatches(self._asked, catalog, workers, self._noting, self._many)

    async def one(self, body: bytes, asking: Asking = PLAINLY) -> Answered:
        """The answer to an `OnlineRequest`."""
        asked = self._asked.one(self._catalog.names, body)
        questions, entity = asked.questions, asked.entities[0]
        if questions is not None:
            question, lag = questions.each[0], self._workers.lag
            wanted = [(s.name, [n]) for s, n in zip(question.sources, entity.names, strict=True)]
            rows = await self._read(wanted)
            try:
                moment = now_of(lag, asked.names.catalog.sources)
                answer, statuses = object_of(question, entity, 0, rows, moment)
            except Uncommon:
                pass
            else:
                self._count(statuses)
                self._check_readable(statuses)
                if self._noting.is_due():
                    told, parts = told_one(answer), [Part(question, [entity], [0], rows)]
                    self._noting.prepared(told, asked, parts, moment, asking.request_id)
                return answer, asked.reads
        evaluated = await self._evaluate(asked, asking)
        (found,) = answers_of(evaluated)
        answer = msgspec.json.encode(found)
        if self._noting.is_due():
            self._noting.evaluated(told_one(answer), evaluated, asking.request_id)
        return answer, self._reads_of(evaluated)

    async def many(
        self,
        body: bytes,
        form: Form = Form.OBJECTS,
        asking: Asking = PLAINLY,
    ) -> Answered:
        """The answer to a `BatchRequest`."""
        asked = self._asked.batch(self._catalog.names, body)
        if asked.questions is not None:
            lag = self._workers.lag
            parts = with_rows(asked.parts, await self._read(asked.wanted))
            with suppress(Uncommon):
                moment = now_of(lag, asked.names.catalog.sources)
                answer, table = self._many(asked, parts, moment, form)
                if self._noting.is_due():
                    told = told_many(answer, table)
                    self._noting.prepared(told, asked, parts, moment, asking.request_id)
                return answer, asked.reads
        evaluated = await self._evaluate(asked, asking)
        if form is Form.OBJECTS:
            answer, table = _objects(map(msgspec.json.encode, answers_of(evaluated))), None
        else:
            table = evaluated_table(evaluated, asked.answered)
            answer = self._written(asked, table, form)
        if self._noting.is_due():
            self._noting.evaluated(told_many(answer, table), evaluated, asking.request_id)
        return answer, self._reads_of(evaluated)

    @property
    def names(self) -> Names:
        """The names of today's catalog. Raises `NotReady` when there is none."""
        return self._catalog.names

    async def columns(
        self,
        names: Names,
        features: Sequence[str],
        entities: Sequence[Entity],
        asking: Asking = PLAINLY,
    ) -> tuple[dict[str, ListedColumn], Sequence[Read]]:
        """What is known of entities, all of one kind, by the names that were requested.

        Beside it is what that counts for.
        """
        asked = self._asked.parsed(names, features, entities)
        if asked.questions is not None:
            question, lag = asked.questions.each[0], self._workers.lag
            of = zip(*[entity.names for entity in asked.entities], strict=True)
            wanted = [(s.name, named) for s, named in zip(question.sources, of, strict=True)]
            rows = await self._read(wanted)
            with suppress(Uncommon):
                moment = now_of(lag, names.catalog.sources)
                listed = listed_of(question.prepared, rows, moment)
                self._served.update(STATUSES[r] for column in listed.values() for r in column.ranks)
                if self._noting.is_due():
                    parts = [Part(question, asked.entities, range(len(asked.entities)), rows)]
                    self._noting.prepared(
                        told_columns(listed), asked, parts, moment, asking.request_id
                    )
                return listed, asked.reads
        evaluated = await self._evaluate(asked, asking)
        listed = listed_table(evaluated_table(evaluated, asked.answered))
        if self._noting.is_due():
            self._noting.evaluated(told_columns(listed), evaluated, asking.request_id)
        return listed, self._reads_of(evaluated)

    async def _read(self, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[TieredRows]:
        assert self._rows is not None, "what is not read by names is not prepared"
        rows = await self._rows.named_rows(wanted)
        if isinstance(rows, Unavailable):
            return [TieredRows([UNAVAILABLE] * len(names), Tier.NONE) for _, names in wanted]
        return rows

    def _many(
        self, asked: Asked, parts: Sequence[Part], moment: Moment, form: Form
    ) -> tuple[bytes, AnswerTable | None]:
        """The answer, and the table that it is written of where it has columns."""
        n = len(asked.entities)
        answers = [b""] * n
        if n <= FEW and form is Form.OBJECTS:
            counted: list[Status] = []
            for part in parts:
                for index, (which, entity) in enumerate(
                    zip(part.which, part.entities, strict=True)
                ):
                    found = object_of(part.question, entity, index, part.rows, moment)
                    answers[which], statuses = found
                    counted += statuses
            self._count(counted)
            self._check_readable(counted)
            return _objects(answers), None
        columns = [answer_columns(part.question.prepared, part.rows, moment) for part in parts]
        self._count_columns(parts, columns)
        if form is not Form.OBJECTS:
            tables = [
                (part.which, prepared_table(part.question.prepared, of_part))
                for part, of_part in zip(parts, columns, strict=True)
            ]
            table = tables[0][1] if len(tables) == 1 else several_kinds(tables, asked.answered)
            return self._written(asked, table, form), table
        if len(parts) == 1:
            form_of = parts[0].question.form
            return form_of.many(asked.texts, columns[0]), None
        for part, of_part in zip(parts, columns, strict=True):
            each = part.question.form.each([e.text for e in part.entities], of_part)
            for which, answer in zip(part.which, each, strict=True):
                answers[which] = answer
        return _objects(answers), None

    def _written(self, asked: Asked, table: AnswerTable, form: Form) -> bytes:
        if form is Form.COMPACT:
            return compact(asked.texts, table, self._times)
        return arrow(asked.plain_entities(), table)

    def _count(self, statuses: Sequence[Status]) -> None:
        """Count served values: once all of an answer is known."""
        if statuses.count(Status.OK) == len(statuses):
            self._served[Status.OK] += len(statuses)
        else:
            self._served.update(statuses)

    def _count_columns(self, parts: Sequence[Part], columns: Sequence[AnswerColumns]) -> None:
        """The same by columns, of all parts of a request. Raises `StoresUnavailable`."""
        if all(found.are_ok for found in columns):
            each = [len(part.entities) * len(part.question.prepared.slots) for part in parts]
            self._served[Status.OK] += sum(each)
            return
        counts = np.zeros(len(STATUSES), np.int64)
        for part, found in zip(parts, columns, strict=True):
            slots = [slot.value for slot in part.question.prepared.slots.values()]
            counts += np.bincount(found.ranks[:, slots].ravel(), minlength=len(STATUSES))
        by_status = zip(STATUSES, counts.tolist(), strict=True)
        self._served.update({status: n for status, n in by_status if n})
        if counts[RANK[Status.UNAVAILABLE]] == counts.sum():
            raise self._unreadable()

    async def _evaluate(self, asked: Asked, asking: Asking) -> Evaluated:
        """What the reader says. It reads several times, and so may take longer than any store."""
        names, features, entities = asked.names, asked.features, asked.plain_entities()
        try:
            async with asyncio.timeout_at(asking.deadline.at):
                while True:
                    moment = partial(now_of, self._workers.lag, names.catalog.sources)
                    evaluated = await self._reader.evaluate(
                        names, features, entities, moment, asking.consumer
                    )
                    unknown = evaluated.unknown_schemas
                    if not unknown or not await self._catalog.has(unknown):
                        break
                    names = self._catalog.names
        except TimeoutError as error:
            raise asking.deadline.missed(error.__cause__) from None
        for _, values in evaluated.answers:
            self._count([evaluated.parts[one].status for one in values.values()])
        self._check_readable(part.status for part in evaluated.parts.values())
        return evaluated

    def _reads_of(self, evaluated: Evaluated) -> Sequence[Read]:
        """What an answer of the reader counts for."""
        values = Counter(ref for _, of in evaluated.answers for ref, _ in of.values())
        return ((self._usage.reads_of(values), 1),)

    def _check_readable(self, statuses: Iterable[Status]) -> None:
        """Raises `StoresUnavailable` where no value could be read."""
        for status in statuses:
            if status is not Status.UNAVAILABLE:
                return
        raise self._unreadable()

    def _unreadable(self) -> StoresUnavailable:
        stores = {breaker.store: breaker.told() for breaker in self._breakers()}
        said = "; ".join(f"{store}: {state}" for store, state in stores.items())
        return StoresUnavailable(
            f"no value of the answer could be read. The breakers of the stores are {said}. Ask "
            "again; /health and the log of the server say more",
            stores=stores,
        )


def _objects(answers: Iterable[bytes]) -> bytes:
    return RESULTS + b",".join(answers) + RESULTS_END
