"""Answers about one entity to what was asked before, of rows that are heard where they arrive."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from registry.formats.status import Status
from serving.api.asked import Asked, AskedBefore
from serving.api.entity_answers import now_of, object_of
from serving.api.noting import Noting
from serving.api.parts import Part
from serving.features.prepared import Uncommon
from serving.features.served_values import told_one
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
        self, question: KnownQuestion, heard: Heard, request_id: bytes, most_bytes: int | None
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
