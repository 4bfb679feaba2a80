"""A request's features of entities, read from a store and answered."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from msgspec import Struct

from registry.errors import CorruptRow
from registry.formats.row import Row, unpack
from serving.features.lookup import Names
from serving.features.plan import Entity, select
from serving.features.values import Evaluation, Moment, Value
from serving.stores.row_store import UNAVAILABLE, Packed, RowId, RowStore, Unavailable

logger = logging.getLogger(__name__)

MAX_MEMBERS = 5_000
"""Entities that the sums of a request may add up, each counted once however often it is named."""


class Answer(Struct):
    """The features of one entity, by the names that were requested."""

    entity: Mapping[str, str]
    features: dict[str, Value]


class Reader:
    """Answers requests from one store.

    In three steps: find the members of what is summed up, read every row once, compute the values.
    """

    def __init__(self, store: RowStore) -> None:
        self._store = store

    async def answer(
        self, names: Names, features: Sequence[str], entities: Sequence[Entity], moment: Moment
    ) -> list[Answer]:
        """The features of each entity, each computed once however often it is requested.

        Raises `UnknownFeature`, `WrongEntity` and `TooLarge`.
        """
        selection = select(names, features, entities)
        sets = selection.member_sets()
        members = await self._store.members(sets, MAX_MEMBERS) if sets else []
        plan = selection.plan(dict(zip(sets, members, strict=True)))
        evaluation = Evaluation(names, await self._rows(plan.rows), moment)
        values = {identity: evaluation.value(recipe) for identity, recipe in plan.recipes.items()}
        return [
            Answer(entity, {name: values[identity] for name, identity in wanted.items()})
            for entity, wanted in plan.answers
        ]

    async def _rows(self, wanted: Sequence[RowId]) -> dict[RowId, Row | Unavailable | None]:
        packed = await self._store.rows(wanted)
        return {row: _unpacked(found) for row, found in zip(wanted, packed, strict=True)}


def _unpacked(packed: Packed) -> Row | Unavailable | None:
    if packed is None or isinstance(packed, Unavailable):
        return packed
    try:
        return unpack(packed)
    except CorruptRow as error:
        logger.error("%s", error)
        return UNAVAILABLE
