"""From rows to values with a status: interpret, combine, judge.

A recipe takes a feature from a row, or combines several such parts
(`registry.language.terms.Part`). Whether the status of a part then gets worse depends on its age
and on the lag of its pipeline. A member of a sum that is closed has no term in it, and no age.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import UNSET, Struct, UnsetType

from registry.definitions import FeatureVersion
from registry.formats.row import Row, ValueStatus, is_closed
from registry.formats.status import Status, worst
from registry.language.terms import Part
from serving.features.lookup import Names
from serving.features.plan import DerivedRecipe, Recipe, Rows, StoredRecipe
from serving.stores.row_store import RowId, Tier, Unavailable

logger = logging.getLogger(__name__)

STATUS = {
    int(ValueStatus.OK): Status.OK,
    int(ValueStatus.WARMING): Status.WARMING,
    int(ValueStatus.UNDEFINED): Status.UNDEFINED,
    int(ValueStatus.CLOSED): Status.MISSING,
}
MISSING = Part(math.nan, Status.MISSING, None)
NOT_ANSWERED = Part(math.nan, Status.UNAVAILABLE, None)


class Value(Struct, kw_only=True):
    """A served value; `value` is null where the status says that it has none.

    `deprecated` is there only of a version that is to be given up: since when it is known to be.
    `experiment` and `variant` are there only where an experiment has decided about the version.
    """

    value: float | None
    status: Status
    version: str
    deprecated: str | UnsetType = UNSET
    experiment: str | UnsetType = UNSET
    variant: str | UnsetType = UNSET
    event_time: str | None
    age_seconds: float | None
    tier: str | None


TIER_NAMES = [None if tier is Tier.NONE else tier.name.lower() for tier in Tier]
"""The tiers as answers name them."""


class ServedVersion(NamedTuple):
    """A version as its values name it."""

    version: str
    deprecated: str | None


def served(
    part: Part, tier: Tier, version: ServedVersion, now_ns: int, text: Callable[[int], str]
) -> Value:
    """A part as it is served; `text` writes an event time."""
    time = part.event_time
    return Value(
        value=None if math.isnan(part.value) else part.value,
        status=part.status,
        version=version.version,
        deprecated=version.deprecated or UNSET,
        event_time=None if time is None else text(time),
        age_seconds=None if time is None else (now_ns - time) / 1e9,
        tier=TIER_NAMES[tier],
    )


@dataclass(frozen=True, slots=True)
class Moment:
    """What an answer is judged by: the time (Unix nanoseconds), and which sources are behind."""

    now_ns: int
    lagging: Callable[[str, Tier], bool]
    """Whether a source is behind in the store of a tier."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Computes what recipes say from the rows that were read."""

    names: Names
    rows: Mapping[RowId, Row | Unavailable | None]
    tiers: Mapping[RowId, Tier]
    moment: Moment

    def tier(self, recipe: Recipe) -> Tier:
        """The coldest of the tiers of the rows that a recipe takes."""
        if isinstance(recipe, StoredRecipe):
            return self.tiers[recipe.row]
        sources = {part.source for part in recipe.formula.parts.values()}
        read = (
            self.tiers[row]
            for rows in recipe.entities or ()
            for source, row in rows.items()
            if source in sources or source == recipe.feature.over
        )
        return max(read, default=Tier.NONE)

    def part(self, recipe: Recipe) -> Part:
        """Value, status and event time of a recipe; the value is NaN where there is none."""
        if isinstance(recipe, StoredRecipe):
            return self._stored(recipe.feature, recipe.row)
        if recipe.entities is None:
            return NOT_ANSWERED
        return self._judged(self._derived(recipe, recipe.entities), recipe.feature, Tier.NONE)

    def _derived(self, recipe: DerivedRecipe, entities: Sequence[Rows]) -> Part:
        over = recipe.feature.over
        parts = [
            (name, part, part.source)
            for name, part in recipe.formula.parts.items()
            if part.source is not None
        ]
        reads_over = any(source == over for _, _, source in parts)
        terms, closed = [], []
        for rows in entities:
            close = None if over is None else self._close(over, rows[over], reads_over)
            if close is None:
                terms.append(
                    {name: self._stored(part, rows[source]) for name, part, source in parts}
                )
            else:
                closed.append(close)
        return recipe.formula.derived.evaluate(terms, closed)

    def _close(self, over: str, member: RowId, is_read: bool) -> Part | None:
        """The close of a member of a sum over `over`, None of one that is open.

        Of a member whose row is not there nobody can say. Its parts say so where the sum reads
        that row (`is_read`), and else it is said here.
        """
        row = self.rows[member]
        if isinstance(row, Row):
            if not is_closed(row.status):
                return None
            behind = self.moment.lagging(over, self.tiers[member])
            status = Status.LAGGING if behind else Status.OK
            return Part(0.0, status, row.event_time)
        if is_read:
            return None
        return MISSING if row is None else NOT_ANSWERED

    def _stored(self, feature: FeatureVersion, wanted: RowId) -> Part:
        row = self.rows[wanted]
        if row is None:
            return MISSING
        if isinstance(row, Unavailable):
            return NOT_ANSWERED
        schema = self.names.catalog.schemas.get(row.schema_id)
        if schema is None:
            return NOT_ANSWERED  # `Evaluated.unknown_schemas`
        if len(schema.features) != len(row.values):
            logger.error(
                "a row of the row schema %d has %d values, and should have %d",
                *(row.schema_id, len(row.values), len(schema.features)),
            )
            return NOT_ANSWERED
        index = self.names.index(row.schema_id, feature.ref)
        if index is None:  # the row is of an older schema, which does not have the feature
            return MISSING
        status = STATUS.get(row.status[index])
        if status is None:
            logger.error("a row has the status byte %d, which no status has", row.status[index])
            return NOT_ANSWERED
        part = Part(row.values[index], status, row.event_time)
        return self._judged(part, feature, self.tiers[wanted])

    def _judged(self, part: Part, feature: FeatureVersion, tier: Tier) -> Part:
        """The part with the status that its age and its pipeline's lag leave it."""
        status, time = part.status, part.event_time
        old = (
            feature.max_age_ns is not None
            and time is not None
            and self.moment.now_ns - time > feature.max_age_ns
        )
        behind = feature.source is not None and self.moment.lagging(feature.source, tier)
        if not old and not behind:
            return part
        if old:
            status = worst((status, Status.STALE))
        if behind:
            status = worst((status, Status.LAGGING))
        return Part(part.value, status, time)
