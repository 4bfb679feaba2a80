"""Answers about one entity to what was asked before, of rows that are heard where they arrive."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from registry.formats.status import Status
from serving.api.asked import Asked, AskedBefore
from serving.api.entity_answers import now_of, object_of
from serving.api.forms import Form
from serving.api.noting import Noting
from serving.api.parts import Part, with_rows
from serving.features.prepared import Uncommon
from serving.features.served_values import told_many, told_one
from serving.features.table import AnswerTable
from serving.features.values import Moment
from serving.stores.heard_rows import Heard
from serving.stores.row_store import TieredRows
from serving.usage import Read
from serving.watch.catalog import CatalogWatch
from serving.watch.workers import Lag, WorkersWatch


class KnownQuestion(NamedTuple):
    """What is asked, and what was known of the workers before its rows were."""

    asked: Asked
    lag: Lag

    @property
    def wanted(self) -> list[tuple[str, Sequence[bytes]]]:
        """The rows that are wanted of each source."""
        return self.asked.wanted

    @property
    def reads(self) -> Sequence[Read]:
        """What the answer counts for."""
        return self.asked.reads


class Known(Protocol):
    """Answers what it knows."""

    def question(self, body: bytes) -> KnownQuestion | None:
        """What a body asks, None where it was not asked before. Raises `NotReady`."""
        ...

    def answer(
        self,
        question: KnownQuestion,
        heard: Heard,
        request_id: bytes,
        form: Form = Form.OBJECTS,
        most_bytes: int | None = None,
    ) -> bytes | None:
        """The answer, which is counted; None where it has to be found otherwise, or is longer."""
        ...


class KnownAnswers:
    """Answers what `asked` knows, as `Answering.one` does."""

    def __init__(
        self,
        asked: AskedBefore,
        catalog: CatalogWatch,
        workers: WorkersWatch,
        served: Counter[str],
        noting: Noting,
    ) -> None:
        self._asked = asked
        self._catalog = catalog
        self._workers = workers
        self._served = served
        self._noting = noting

    def question(self, body: bytes) -> KnownQuestion | None:
        """What a body asks, None where it was not asked before. Raises `NotReady`."""
        asked = self._asked.kept(self._catalog.names, body)
        return None if asked is None else KnownQuestion(asked, self._workers.lag)

    def answer(
        self,
        question: KnownQuestion,
        heard: Heard,
        request_id: bytes,
        form: Form = Form.OBJECTS,
        most_bytes: int | None = None,
    ) -> bytes | None:
        """The answer, which is counted; None where it has to be found otherwise, or is longer."""
        asked, lag = question
        assert asked.questions is not None
        one, entity = asked.questions.each[0], asked.entities[0]
        now, statuses = time.time_ns(), one.all_ok
        answer = None
        if now <= lag.all_on_time_until(one.topics) * 10**9:
            rows = [of[0] for of in heard.rows]
            found = one.prepared.plain(rows, now)
            if found is not None:
                answer = one.form.plain(entity.text, found, heard.tier, now)
        read: list[TieredRows] = []
        moment: Moment | None = None
        if answer is None:
            read = [TieredRows(of, heard.tier) for of in heard.rows]
            moment = now_of(lag, asked.names.catalog.sources, now)
            try:
                answer, counted = object_of(one, entity, 0, read, moment)
            except Uncommon:
                return None
            statuses = list(counted)
        if most_bytes is not None and len(answer) > most_bytes:
            return None
        if statuses is one.all_ok:
            self._served[Status.OK] += len(statuses)
        else:
            self._served.update(statuses)
        if self._noting.is_due():
            read = [TieredRows(of, heard.tier) for of in heard.rows]
            moment = now_of(lag, asked.names.catalog.sources, now)
            parts = [Part(one, [entity], [0], read)]
            self._noting.prepared(told_one(answer), asked, parts, moment, request_id.decode())
        return answer


WriteMany = Callable[[Asked, Sequence[Part], Moment, Form], tuple[bytes, AnswerTable | None]]
"""Writes an answer about many entities of their rows, and counts it; it may raise `Uncommon`."""


class KnownBatches:
    """Answers the batches that `asked` knows, as `Answering.many` does."""

    def __init__(
        self,
        asked: AskedBefore,
        catalog: CatalogWatch,
        workers: WorkersWatch,
        noting: Noting,
        write: WriteMany,
    ) -> None:
        self._asked = asked
        self._catalog = catalog
        self._workers = workers
        self._noting = noting
        self._write = write

    def question(self, body: bytes) -> KnownQuestion | None:
        """What a body asks, None where it was not asked before. Raises `NotReady`."""
        asked = self._asked.kept_batch(self._catalog.names, body)
        return None if asked is None else KnownQuestion(asked, self._workers.lag)

    def answer(
        self,
        question: KnownQuestion,
        heard: Heard,
        request_id: bytes,
        form: Form = Form.OBJECTS,
        most_bytes: int | None = None,
    ) -> bytes | None:
        """The answer, which is counted; None where it has to be found otherwise.

        With `most_bytes` that is always: it is as a rule longer.
        """
        asked, lag = question
        if most_bytes is not None:
            return None
        moment = now_of(lag, asked.names.catalog.sources)
        parts = with_rows(asked.parts, [TieredRows(of, heard.tier) for of in heard.rows])
        try:
            answer, table = self._write(asked, parts, moment, form)
        except Uncommon:
            return None
        if self._noting.is_due():
            told = told_many(answer, table)
            self._noting.prepared(told, asked, parts, moment, request_id.decode())
        return answer
