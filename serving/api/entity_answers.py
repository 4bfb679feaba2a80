"""What is known of one entity, or of few: the bytes of an answer, and columns, of rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from registry.definitions import Source
from registry.formats.status import Status
from serving.api.asked import AskedEntity, Question
from serving.api.objects import RESULTS, RESULTS_END
from serving.features.columns import answer_columns
from serving.features.prepared import PreparedQuestion, Uncommon
from serving.features.table import ListedColumn, listed_entities, listed_table, prepared_table
from serving.features.values import Moment
from serving.stores.row_store import Tier, TieredRows
from serving.watch.workers import Lag, Sink

FEW = 12
"""Up to so many entities are answered one by one: columns have a cost of their own."""

STATUSES = list(Status)
"""By their ranks."""


def now_of(lag: Lag, sources: Mapping[str, Source], now_ns: int | None = None) -> Moment:
    """The moment of an answer, once its rows are read.

    What is lagging follows from what was known of the workers before that, and is the same for all
    rows: a worker may catch up meanwhile, and a row from before that would pass for one that is up
    to date.
    """
    now = time.time_ns() if now_ns is None else now_ns

    def lagging(source: str, tier: Tier) -> bool:
        sink: Sink = "offline" if tier is Tier.COLD else "online"
        return now > lag.on_time_until(sources[source].topic, sink) * 10**9

    return Moment(now, lagging)


def listed_of(
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


def object_of(
    question: Question, entity: AskedEntity, index: int, read: Sequence[TieredRows], moment: Moment
) -> tuple[bytes, Sequence[Status]]:
    """The answer about one entity, and the statuses of its values; `index` is that of its rows.

    Raises `Uncommon`.
    """
    prepared, form = question.prepared, question.form
    answer = _plain(question, entity, index, read, moment)
    if answer is not None:
        return answer, question.all_ok
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


def _plain(
    question: Question, entity: AskedEntity, index: int, read: Sequence[TieredRows], moment: Moment
) -> bytes | None:
    """The same where all values are `ok`, and from one tier; else None."""
    tier = read[0].tier_of(index)
    for of, wanted in zip(read, question.prepared.rows, strict=True):
        if of.tier_of(index) is not tier or moment.lagging(wanted.source.name, tier):
            return None
    found = question.prepared.plain([of.rows[index] for of in read], moment.now_ns)
    return None if found is None else question.form.plain(entity.text, found, tier, moment.now_ns)
