"""A request's features of entities, read from a store and answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from msgspec import Struct, structs

from registry.definitions import Experiment
from registry.errors import CorruptRow
from registry.formats.row import Row, is_closed, unpack
from registry.language.terms import Part
from serving.features.lookup import Names
from serving.features.plan import (
    Entity,
    Identity,
    Members,
    Plan,
    PlannedAnswer,
    Recipe,
    Selection,
    select,
)
from serving.features.times import to_rfc_3339
from serving.features.values import Evaluation, Moment, ServedVersion, Value, served
from serving.stores.row_store import UNAVAILABLE, Packed, RowId, RowStore, Tier, Unavailable

logger = logging.getLogger(__name__)

MAX_MEMBERS = 5_000
"""Entities that the sums of a request may add up, each counted once however often it is named."""


REREADS = 3
"""How often members and rows are read again, while positions are closed between the two, or another
store has to be asked."""


class Answer(Struct):
    """The features of one entity, by the names that were requested."""

    entity: Mapping[str, str]
    features: dict[str, Value]


class Evaluated(NamedTuple):
    """What is known of entities, by what was requested, and the rows that it was made of."""

    names: Names
    moment: Moment
    answers: Sequence[PlannedAnswer]
    recipes: Mapping[Identity, Recipe]
    parts: Mapping[Identity, Part]
    tiers: Mapping[Identity, Tier]
    rows: Mapping[RowId, Row | Unavailable | None]
    row_tiers: Mapping[RowId, Tier]
    tested: Mapping[str, Experiment]
    """The experiments that have decided what names mean, by these names."""

    @property
    def now_ns(self) -> int:
        """When they are judged, Unix nanoseconds."""
        return self.moment.now_ns

    @property
    def unknown_schemas(self) -> set[int]:
        """The row schemas that rows are in, and that the catalog does not have."""
        known = self.names.catalog.schemas
        rows = (row for row in self.rows.values() if isinstance(row, Row))
        return {row.schema_id for row in rows if row.schema_id not in known}


class _Read(NamedTuple):
    """What was read for a request."""

    members: Members
    plan: Plan
    rows: Mapping[RowId, Row | Unavailable | None]
    tiers: Mapping[RowId, Tier]
    is_mixed: bool
    """Whether members are from one store, and what is known of them from an older one."""

    def has_left(self) -> bool:
        """Whether a member has a row in which it is closed, and so is none any more."""
        rows = (
            self.rows.get(RowId(one.source, key))
            for one, members in self.members.items()
            if not isinstance(members, Unavailable)
            for key in members
        )
        return any(isinstance(row, Row) and is_closed(row.status) for row in rows)


class Reader:
    """Answers requests from one store.

    In three steps: find the members of what is summed up, read every row once, compute the values.
    An entity that is closed between the first two has left its group, and others may have come in
    the same moment: then both are made again. So they are where the store turned to another one
    between them: members that warm knows, with rows of cold, may be a sum that never was.
    """

    def __init__(self, store: RowStore) -> None:
        self._store = store

    async def answer(
        self,
        names: Names,
        features: Sequence[str],
        entities: Sequence[Entity],
        moment: Callable[[], Moment],
    ) -> list[Answer]:
        """The features of each entity. Raises as `evaluate`."""
        return answers_of(await self.evaluate(names, features, entities, moment))

    async def evaluate(
        self,
        names: Names,
        features: Sequence[str],
        entities: Sequence[Entity],
        moment: Callable[[], Moment],
        consumer: Callable[[], str] = lambda: "",
    ) -> Evaluated:
        """The features of each entity, each computed once however often it is requested.

        They are judged by `moment`, which is asked once all rows are read. `consumer` says who asks
        where an experiment depends on it. Raises as `select`, and `TooLarge`.
        """
        selection = select(names, features, entities, consumer)
        store = self._store.pinned()
        read = await self._read(store, selection)
        for _ in range(REREADS):
            if not read.is_mixed and not read.has_left():
                break
            before, read = read, await self._read(store, selection)
            if read.members == before.members and not before.is_mixed:  # they were closed already
                break
        plan = read.plan
        now = moment()
        evaluation = Evaluation(names, read.rows, read.tiers, now)
        parts = {identity: evaluation.part(recipe) for identity, recipe in plan.recipes.items()}
        tiers = {identity: evaluation.tier(recipe) for identity, recipe in plan.recipes.items()}
        found = plan.answers, plan.recipes, parts, tiers, read.rows, read.tiers
        return Evaluated(names, now, *found, selection.tested)

    async def _read(self, store: RowStore, selection: Selection) -> _Read:
        sets, groups = selection.member_sets(), selection.groups()
        members = await store.members(sets, MAX_MEMBERS) if sets else []
        pinned = store.pinned()
        closed = await store.last_closed(groups) if groups else []
        found = dict(zip(sets, members, strict=True))
        plan = selection.plan(found, dict(zip(groups, closed, strict=True)))
        read = await store.rows(plan.rows)
        rows = {row: _unpacked(one) for row, one in zip(plan.rows, read.rows, strict=True)}
        tiers = {row: read.tier_of(index) for index, row in enumerate(plan.rows)}
        is_mixed = bool(sets) and store.pinned() is not pinned
        return _Read(found, plan, rows, tiers, is_mixed)


def answers_of(evaluated: Evaluated) -> list[Answer]:
    """What is served of entities."""
    text = cache(to_rfc_3339)  # the features of a row have one event time
    now, recipes, deprecated = evaluated.now_ns, evaluated.recipes, evaluated.names.deprecated
    values = {}
    for identity, part in evaluated.parts.items():
        feature = recipes[identity].feature
        version = ServedVersion(feature.version, deprecated.get(feature.ref))
        values[identity] = served(part, evaluated.tiers[identity], version, now, text)
    answers = [
        Answer(entity, {name: values[identity] for name, identity in wanted.items()})
        for entity, wanted in evaluated.answers
    ]
    for name, experiment in evaluated.tested.items():
        variants = {arm.version: arm.variant for arm in experiment.arms}
        for answer in answers:
            if name in answer.features:
                value = answer.features[name]
                told = {"experiment": experiment.name, "variant": variants[value.version]}
                answer.features[name] = structs.replace(value, **told)
    return answers


def _unpacked(packed: Packed) -> Row | Unavailable | None:
    if packed is None or isinstance(packed, Unavailable):
        return packed
    try:
        return unpack(packed)
    except CorruptRow as error:
        logger.error("%s", error)
        return UNAVAILABLE
