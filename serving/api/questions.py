"""The bodies of requests to the bytes of answers.

A question that is asked again is prepared: what its answers have in common is kept by the text that
asked, so that a request costs a look into a table, a read, and a join of texts. What is kept was
parsed strictly when it came first. It belongs to one catalog and is bounded in bytes. The general
reader answers what cannot be prepared.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from registry.definitions import Source
from registry.formats.status import Status
from serving.api.memo import TimeTexts
from serving.api.objects import RESULTS, RESULTS_END, ObjectsForm
from serving.api.requests import MAX_ENTITIES, BatchRequest, OnlineRequest, parse
from serving.errors import NotReady
from serving.features.columns import AnswerColumns, answer_columns
from serving.features.lookup import Names
from serving.features.plan import Entity
from serving.features.prepared import PreparedQuestion, Uncommon
from serving.features.reader import Answer, Reader
from serving.features.values import Moment
from serving.stores.row_store import UNAVAILABLE, NamedRows, Packed, Unavailable
from serving.watch.catalog import CatalogWatch
from serving.watch.workers import WorkersWatch

KEPT_BYTES = 32_000_000
"""Bytes of what is kept of questions, about."""

LONGEST_KEPT = 1_024
"""Bytes of the text of a request, or of an entity, that is kept."""

ENTRY_BYTES = 600
"""What an entry takes beside the text that asked, about."""

QUESTION_BYTES, FEATURE_BYTES = 4_096, 1_024
"""What a question takes, and each feature in it, about: texts of each status are kept of it."""

FEW = 12
"""Up to so many entities are answered one by one: columns have a cost of their own."""

DEADLINE_SECONDS = 5.0
"""Time for a whole request, in seconds: one for the store, the rest for a slow client."""


class Asked(NamedTuple):
    """An entity: as its answer names it, and as the store names its row in each source."""

    text: bytes
    names: tuple[bytes, ...]


class _RawBatch(msgspec.Struct, forbid_unknown_fields=True):
    """A `BatchRequest` of which only the structure was read."""

    features: msgspec.Raw
    entities: list[msgspec.Raw]


class _Question:
    """A prepared question, how its answers are written, and the entities that it was asked of."""

    def __init__(self, prepared: PreparedQuestion, rows: NamedRows, times: TimeTexts) -> None:
        self.prepared = prepared
        self.form = ObjectsForm(prepared, times)
        self.sources = [wanted.source for wanted in prepared.rows]
        self.asked: dict[bytes, Asked] = {}
        """By the text that named an entity in a batch."""
        self._rows = rows

    def entity(self, entity: Entity) -> Asked:
        """What is asked of an entity."""
        names = [self._rows.name(row) for row in self.prepared.row_ids(entity)]
        return Asked(msgspec.json.encode(entity), tuple(names))


class Questions:
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
        self._decode_raw = msgspec.json.Decoder(_RawBatch).decode
        self._names: Names | None = None
        self._forget()

    async def one(self, body: bytes) -> bytes:
        """The answer to an `OnlineRequest`."""
        names = self._current_names()
        known = self._bodies.get(body)
        if known is None:
            request = parse(body, OnlineRequest)
            entity = request.key()
            question = self._question(names, request.features, entity)
            if question is None:
                return await self._general_one(names, request.features, entity)
            known = question, question.entity(entity)
            if self._has_room(body):
                self._bodies[body] = known
        question, asked = known
        wanted = [(s.name, (row,)) for s, row in zip(question.sources, asked.names, strict=True)]
        rows = await self._read(question, wanted, 1)
        try:
            return self._answer_one(question, asked, rows, self._moment(question))
        except Uncommon:
            entity = msgspec.json.decode(asked.text)
            return await self._general_one(names, question.prepared.requested, entity)

    async def many(self, body: bytes) -> bytes:
        """The answer to a `BatchRequest`."""
        names = self._current_names()
        known = self._known_batch(body)
        if known is None:
            request = parse(body, BatchRequest)
            first = request.entities[0]
            alike = all(entity.keys() == first.keys() for entity in request.entities)
            question = self._question(names, request.features, first) if alike else None
            if question is None:
                return await self._general_many(names, request.features, request.entities)
            known = question, self._learned(question, body, request.entities)
        question, asked = known
        of_sources = zip(
            question.sources, zip(*[one.names for one in asked], strict=True), strict=True
        )
        rows = await self._read(question, [(s.name, of) for s, of in of_sources], len(asked))
        try:
            return self._answer_many(question, asked, rows, self._moment(question))
        except Uncommon:
            entities = [msgspec.json.decode(one.text) for one in asked]
            return await self._general_many(names, question.prepared.requested, entities)

    async def _read(
        self, question: _Question, wanted: Sequence[tuple[str, Sequence[bytes]]], n: int
    ) -> list[list[Packed]]:
        assert self._rows is not None
        rows = await self._rows.named_rows(wanted)
        if isinstance(rows, Unavailable):
            return [[UNAVAILABLE] * n for _ in question.sources]
        return rows

    def _answer_one(
        self, question: _Question, asked: Asked, rows: Sequence[Sequence[Packed]], moment: Moment
    ) -> bytes:
        prepared, form = question.prepared, question.form
        try:
            found = prepared.evaluate([row for (row,) in rows], moment)
        except Uncommon:  # columns take more
            columns = answer_columns(prepared, rows, moment)
            self._count(question, columns)
            return form.many([asked.text], columns)[len(RESULTS) : -len(RESULTS_END)]
        if found.statuses.count(Status.OK) == len(found.statuses):
            self._served[Status.OK] += len(prepared.slots)
        else:
            self._served.update(found.statuses[slot.value] for slot in prepared.slots.values())
        return form.one(asked.text, found, moment.now_ns)

    def _answer_many(
        self,
        question: _Question,
        asked: Sequence[Asked],
        rows: Sequence[Sequence[Packed]],
        moment: Moment,
    ) -> bytes:
        if len(asked) <= FEW:
            each = zip(asked, zip(*rows, strict=True), strict=True)
            answers = [
                self._answer_one(question, one, [(row,) for row in of], moment) for one, of in each
            ]
            return RESULTS + b",".join(answers) + RESULTS_END
        columns = answer_columns(question.prepared, rows, moment)
        self._count(question, columns)
        return question.form.many([one.text for one in asked], columns)

    def _count(self, question: _Question, columns: AnswerColumns) -> None:
        slots = [slot.value for slot in question.prepared.slots.values()]
        counts = np.bincount(columns.ranks[:, slots].ravel(), minlength=len(Status))
        for status, count in zip(Status, counts.tolist(), strict=True):
            if count:
                self._served[status] += count

    async def _general_one(self, names: Names, features: Sequence[str], entity: Entity) -> bytes:
        (answer,) = await self._general(names, features, [entity])
        return msgspec.json.encode(answer)

    async def _general_many(
        self, names: Names, features: Sequence[str], entities: Sequence[Entity]
    ) -> bytes:
        answers = await self._general(names, features, entities)
        return RESULTS + b",".join(map(msgspec.json.encode, answers)) + RESULTS_END

    async def _general(
        self, names: Names, features: Sequence[str], entities: Sequence[Entity]
    ) -> list[Answer]:
        moment = self._moment_of(names.catalog.sources.values())
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                answers = await self._reader.answer(names, features, entities, moment)
        except TimeoutError:
            raise NotReady(
                f"no answer within {DEADLINE_SECONDS:g} s: ask for less, or again"
            ) from None
        for answer in answers:
            self._served.update(value.status for value in answer.features.values())
        return answers

    def _moment(self, question: _Question) -> Moment:
        return self._moment_of(question.sources)

    def _moment_of(self, sources: Collection[Source]) -> Moment:
        """Now. Lag is decided once of each source, so that no answer contradicts itself."""
        lagging = {source.name: self._workers.lagging(source.topic) for source in sources}
        return Moment(time.time_ns(), lagging.__getitem__)

    def _current_names(self) -> Names:
        names = self._catalog.names
        if names is not self._names:
            self._names = names
            self._forget()
        return names

    def _forget(self) -> None:
        self._bodies: dict[bytes, tuple[_Question, Asked]] = {}
        self._questions: dict[tuple[tuple[str, ...], frozenset[str]], _Question | None] = {}
        self._of_batches: dict[bytes, _Question] = {}
        """By the text of the features in a batch, the question that it was last."""
        self._bytes = 0

    def _has_room(self, text: bytes) -> bool:
        """Whether something is kept by a text; where there is no more room, all is forgotten."""
        if len(text) > LONGEST_KEPT:
            return False
        self._take(len(text) + ENTRY_BYTES)
        return True

    def _take(self, size: int) -> None:
        self._bytes += size
        if self._bytes > KEPT_BYTES:
            self._forget()
            self._bytes = size

    def _question(
        self, names: Names, features: Sequence[str], fields: Collection[str]
    ) -> _Question | None:
        """The prepared question, None where it cannot be prepared."""
        if self._rows is None:
            return None
        key = tuple(features), frozenset(fields)
        if key in self._questions:
            return self._questions[key]
        try:
            prepared = PreparedQuestion(names, features, tuple(fields))
            question = _Question(prepared, self._rows, self._times)
        except Uncommon:
            question = None
        self._take(QUESTION_BYTES + FEATURE_BYTES * len(features))
        self._questions[key] = question
        return question

    def _known_batch(self, body: bytes) -> tuple[_Question, list[Asked]] | None:
        """The question and its entities, where all texts of the body are known."""
        try:
            raw = self._decode_raw(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None  # the strict parser says what is wrong
        question = self._of_batches.get(bytes(raw.features))
        if question is None or not 0 < len(raw.entities) <= MAX_ENTITIES:
            return None
        known = question.asked
        try:
            return question, [known[bytes(entity)] for entity in raw.entities]
        except KeyError:
            return None

    def _learned(
        self, question: _Question, body: bytes, entities: Sequence[Mapping[str, str]]
    ) -> list[Asked]:
        """What is asked of the entities of a body that was parsed; they are kept by their texts."""
        raw = self._decode_raw(body)
        features = bytes(raw.features)
        if self._has_room(features):
            self._of_batches[features] = question
        asked = []
        for text, entity in zip(map(bytes, raw.entities), entities, strict=True):
            one = question.asked.get(text) or question.entity(entity)
            asked.append(one)
            if text not in question.asked and self._has_room(text):
                question.asked[text] = one
        return asked
