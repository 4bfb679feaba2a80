"""Explains a value: its ticks and its arithmetic, and proves that they give what was served.

The tick is found by the join that makes training sets, so an explanation cannot be of another one.
The arithmetic is that of `registry.language.worked`, which computes it a second time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from registry.definitions import FeatureVersion
from registry.formats.entity_name import entity_id, key_values
from registry.formats.row import ValueStatus
from registry.formats.status import RANK, Status, has_value, worst
from registry.language.terms import Part
from registry.language.worked import Step, Window, Worked, window_of
from registry.language.worked_terms import WorkedTerm, worked_sum, worked_term
from registry.resources import sql
from serving.errors import InvalidRequest, TooLarge
from serving.features.columns import NO_TIME
from serving.features.lookup import Names, check_entities
from serving.features.reader import MAX_MEMBERS
from serving.features.times import to_rfc_3339
from serving.history.explanation import (
    Explanation,
    Number,
    Operation,
    ReadPart,
    StoredValue,
    Term,
)
from serving.history.found_ticks import backfills_of
from serving.history.let_go import check_in_postgres
from serving.history.past_columns import judged
from serving.history.reasons import Read, of_derived, of_stored
from serving.history.snapshot import Snapshot
from serving.history.sources import Sources
from serving.history.stored_reads import STATUSES, StoredReads, When
from serving.history.sums import members_of
from serving.history.window_ticks import (
    Filled,
    StoredTick,
    TickKey,
    filled,
    stored_tick,
    window_ticks,
)
from serving.history.window_ticks import Window as InWindow

RECORDED = sql(__package__, "recorded")
STORED, SERVED = "stored", "computed as servers do"


class Explainer:
    """Explains values, in one snapshot of the database; sums over at most `most_members`."""

    def __init__(
        self, snapshot: Snapshot, names: Names | None = None, most_members: int = MAX_MEMBERS
    ) -> None:
        """`names` are those of the snapshot's catalog, where somebody has them already."""
        self._snapshot = snapshot
        self._names = names or Names(snapshot.catalog)
        self._most_members = most_members
        self._backfills = backfills_of(snapshot)
        self._sources = Sources(snapshot, self._names)
        self._reads = StoredReads(self._sources, self._backfills)

    def explain(
        self,
        feature: str,
        entity: Mapping[str, str],
        at: int | None = None,
        tick: TickKey | None = None,
    ) -> Explanation:
        """How a feature of an entity came about: as it is now, or was served at a moment.

        With `tick` it is the value of that tick, of a feature that is stored, whatever its age.

        Raises `UnknownFeature`, `RetiredFeature` for a name, but not for the pin, of what is
        retired, `WrongEntity`, `TooLarge` for a sum over too many entities, and `InvalidRequest`
        where an experiment decides what the name means, the tick is not stored, or its window is in
        the lake alone. What is derived is explained there, too, where the lake is known; files that
        cannot be read are `StoresUnavailable`.
        """
        version = self._version(feature)
        check_entities(self._names, {feature: version}, [entity])
        if tick is not None:
            return self._of_tick(version, entity, tick)
        when = When(at, time.time_ns() if at is None else at)
        if version.source is not None:
            return self._stored(version, entity, when)
        if version.over is None:
            return self._derived(version, entity, when)
        return self._summed(version, entity, when)

    def _version(self, feature: str) -> FeatureVersion:
        pinned = self._names.catalog.features.get(feature)
        if pinned is not None:
            return pinned
        version = self._names.feature(feature)
        for name, experiment in self._names.tested([feature]).items():
            raise InvalidRequest(
                f"{name} means several versions, as the experiment {experiment.name} decides: name "
                f"one, as {version.ref}",
                feature=name,
            )
        return version

    def _explanation(
        self, version: FeatureVersion, entity: Mapping[str, str], when: When, part: Part, why: str
    ) -> Explanation:
        wanted = {"name": version.name, "version": version.version}
        ((created_at, created_by),) = self._snapshot.rows(RECORDED, wanted)
        return Explanation(
            feature=version.ref,
            expression=version.expression,
            entity={field: entity[field] for field in version.entity},
            recorded_at=created_at.isoformat(),
            recorded_by=created_by,
            at=None if when.at is None else to_rfc_3339(when.at),
            judged_at=to_rfc_3339(when.judged),
            status=part.status,
            value=Number.of(part.value) if has_value(part.status) else None,
            event_time=_text(part.event_time),
            because=why,
        )

    # ------------------------------------------------------------ stored features

    def _stored(
        self, version: FeatureVersion, entity: Mapping[str, str], when: When
    ) -> Explanation:
        assert version.source is not None
        if when.at is not None:  # its window is shown, which is read in Postgres
            check_in_postgres(self._snapshot, version.source, when.at)
        (read,) = self._reads.read(version, [self._key(version, entity)], when)
        return self._explained(read, entity, when)

    def _of_tick(
        self, version: FeatureVersion, entity: Mapping[str, str], tick: TickKey
    ) -> Explanation:
        if version.source is None:
            raise InvalidRequest(f"{version.ref} is derived: it has no value of a tick")
        read = self._reads.read_tick(version, self._key(version, entity), tick)
        return self._explained(read, entity, When(tick.event_time, tick.event_time))

    def _explained(self, read: Read, entity: Mapping[str, str], when: When) -> Explanation:
        version = read.version
        if read.tick is None:
            return self._explanation(version, entity, when, read.part, of_stored(read, when.judged))
        assert version.source is not None
        source = self._names.catalog.sources[version.source]
        window = window_of(version.expression, source, version.ref)
        asked = InWindow(entity_id(read.key), read.tick, read.loaded)
        own = stored_tick(self._snapshot, source, asked)
        if own is None:
            check_in_postgres(self._snapshot, version.source, read.tick.event_time)
        assert own is not None
        asked = asked._replace(backfill=self._backfill(read, own))
        ticks = window_ticks(self._snapshot, source, asked, window.depth)
        fill = filled(ticks)
        is_full = not fill.closed and fill.ticks >= window.depth
        values = [tick.fields[window.field] for tick in ticks]
        worked = window.worked(values) if is_full else Worked(math.nan, ())
        why = of_stored(read, when.judged, (fill, window.depth), worked)
        made = self._explanation(version, entity, when, read.part, why)
        made.ticks = tuple(tick.shown for tick in ticks)
        made.field = source.field_names[window.field]
        made.steps = _operations(worked.steps)
        made.stored = self._where(read, ticks[-1])
        if made.stored.status is not None:
            found = _status(fill, window, worked)
            made.prove(STORED, (read.value, made.stored.status), (worked.value, found))
        return made

    def _holding(self, read: Read, tick: StoredTick) -> list[int]:
        """The row schemas of a tick's rows that have the version."""
        ref = read.version.ref
        return [one for one in tick.values if self._names.index(one, ref) is not None]

    def _backfill(self, read: Read, tick: StoredTick) -> int | None:
        """The backfill that computed what is read of a tick, if one did."""
        if read.lacks or self._holding(read, tick):
            return None
        return self._backfills[read.version.ref]

    def _where(self, read: Read, tick: StoredTick) -> StoredValue:
        return StoredValue(
            event_time=to_rfc_3339(tick.key.event_time),
            sequence=tick.key.sequence,
            known_at=to_rfc_3339(tick.known_at),
            revision=0,
            row_schema=max(self._holding(read, tick), default=None),
            backfill=self._backfill(read, tick),
            value=None if read.lacks else Number.of(read.value),
            status=None if read.lacks else read.status,
        )

    # ------------------------------------------------------------ derived features

    def _derived(
        self, version: FeatureVersion, entity: Mapping[str, str], when: When
    ) -> Explanation:
        formula = self._names.derived[version.ref]
        reads = {
            name: self._reads.read(part, [self._key(part, entity)], when)[0]
            for name, part in formula.parts.items()
        }
        parts = {name: read.part for name, read in reads.items()}
        served = self._judged(version, formula.derived.evaluate([parts]), when)
        term = worked_term(version.expression, version.ref, parts)
        result = term.worked if has_value(term.status) else Worked(math.nan, ())
        seen = tuple(self._part(name, read, when) for name, read in reads.items())
        why = of_derived(served, seen, result, version, when.judged)
        made = self._explanation(version, entity, when, served, why)
        made.parts, made.steps = seen, _operations(result.steps)
        self._prove(made, version, served, term, when)
        return made

    def _summed(
        self, version: FeatureVersion, entity: Mapping[str, str], when: When
    ) -> Explanation:
        assert version.over is not None
        formula, over = self._names.derived[version.ref], version.over
        fields = self._sources.key_of(over)
        group = entity_id([entity[field] for field in fields if field in version.entity])
        members = members_of(self._sources, over, [group]).names
        if len(members) > self._most_members:
            raise TooLarge(
                f"the sum is over {len(members):,} entities, and at most {self._most_members:,} "
                "are explained here"
            )
        entities = [dict(zip(fields, key_values(one), strict=True)) for one in members]
        opened, closed = self._members(over, entities, when)
        columns = {
            name: self._reads.read(part, [self._key(part, one) for one in opened], when)
            for name, part in formula.parts.items()
        }
        each = [
            {name: column[number] for name, column in columns.items()}
            for number in range(len(opened))
        ]
        parts = [{name: read.part for name, read in reads.items()} for reads in each]
        served = self._judged(version, formula.derived.evaluate(parts, list(closed.values())), when)
        worked = [worked_term(version.expression, version.ref, one) for one in parts]
        made = self._explanation(version, entity, when, served, "")
        made.terms = tuple(
            self._terms(
                entities,
                dict(zip(map(_frozen, opened), zip(each, worked, strict=True), strict=True)),
                closed,
                when,
            )
        )
        sum_of = worked_sum([term.worked.value for term in worked])
        if not all(has_value(term.status) for term in worked):
            sum_of = Worked(math.nan, ())
        elif not worked and closed:
            sum_of = Worked(0.0, (Step("all are closed: 0.0", 0.0),))
        made.steps = _operations(sum_of.steps)
        seen = [part for term in made.terms for part in term.parts]
        made.because = of_derived(served, seen, sum_of, version, when.judged)
        whole = WorkedTerm(sum_of, *_together(worked, closed.values()))
        self._prove(made, version, served, whole, when)
        return made

    def _members(
        self, over: str, entities: Sequence[Mapping[str, str]], when: When
    ) -> tuple[list[Mapping[str, str]], dict[tuple[str, ...], Part]]:
        """Which entities were open, and the closes of those that were not."""
        fields = self._sources.key_of(over)
        names = [entity_id([one[field] for field in fields]) for one in entities]
        ticks = self._reads.ticks(over, names, when, [])
        times, is_closed = ticks.event_times.tolist(), ticks.closed.tolist()
        opened, closed = [], {}
        for one, event_time, ended in zip(entities, times, is_closed, strict=True):
            if ended:
                closed[_frozen(one)] = Part(0.0, Status.OK, event_time)
            elif event_time != NO_TIME:
                opened.append(one)
        return opened, closed

    def _terms(
        self,
        entities: Sequence[Mapping[str, str]],
        opened: Mapping[tuple[str, ...], tuple[Mapping[str, Read], WorkedTerm]],
        closed: Mapping[tuple[str, ...], Part],
        when: When,
    ) -> Iterator[Term]:
        """What each member adds, in the order of adding."""
        for one in entities:
            key = _frozen(one)
            if key in closed:
                ended = _text(closed[key].event_time)
                yield Term(dict(one), True, Status.OK, None, ended, (), ())
            elif key in opened:
                reads, term = opened[key]
                value = Number.of(term.worked.value) if has_value(term.status) else None
                yield Term(
                    entity=dict(one),
                    closed=False,
                    status=term.status,
                    value=value,
                    event_time=_text(term.event_time),
                    parts=tuple(self._part(name, read, when) for name, read in reads.items()),
                    steps=() if value is None else _operations(term.worked.steps),
                )

    def _key(self, part: FeatureVersion, entity: Mapping[str, str]) -> tuple[str, ...]:
        assert part.source is not None
        return tuple(entity[field] for field in self._sources.key_of(part.source))

    def _part(self, name: str, read: Read, when: When) -> ReadPart:
        part, version = read.part, read.version
        assert version.source is not None
        return ReadPart(
            name=name,
            feature=version.ref,
            entity=dict(zip(self._sources.key_of(version.source), read.key, strict=True)),
            status=part.status,
            value=Number.of(part.value) if has_value(part.status) else None,
            event_time=_text(part.event_time),
            because=of_stored(read, when.judged),
        )

    def _prove(
        self,
        made: Explanation,
        version: FeatureVersion,
        served: Part,
        term: WorkedTerm,
        when: When,
    ) -> None:
        """Compare what the steps come to with what servers and training sets compute."""
        value, status = term.worked.value, term.status
        if not has_value(status):
            value = math.nan
        elif not math.isfinite(value):
            value, status = math.nan, Status.UNDEFINED
        found = self._judged(version, Part(value, status, term.event_time), when)
        made.prove(SERVED, (served.value, served.status.value), (value, found.status.value))

    def _judged(self, version: FeatureVersion, part: Part, when: When) -> Part:
        """A derived value with the status that its own age leaves it."""
        moment = np.array([when.judged], np.int64)
        rank = np.array([RANK[part.status]], np.uint8)
        time_ = np.array([NO_TIME if part.event_time is None else part.event_time], np.int64)
        (found,) = judged(rank, time_, moment, version).tolist()
        return Part(part.value, STATUSES[found], part.event_time)


def _status(fill: Filled, window: Window, worked: Worked) -> str:
    """What a row has to say of a value."""
    if fill.closed:
        return ValueStatus.CLOSED.name.lower()
    if fill.ticks < window.depth:
        return ValueStatus.WARMING.name.lower()
    found = ValueStatus.UNDEFINED if math.isnan(worked.value) else ValueStatus.OK
    return found.name.lower()


def _together(terms: Sequence[WorkedTerm], closed: Collection[Part]) -> tuple[Status, int | None]:
    """The status and the event time of a sum."""
    if terms:
        times = [term.event_time for term in terms if term.event_time is not None]
        statuses = [*(term.status for term in terms), *(part.status for part in closed)]
        return worst(statuses), min(times, default=None)
    if closed:
        return Status.OK, max(part.event_time for part in closed if part.event_time is not None)
    return Status.MISSING, None


def _frozen(entity: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(entity.values())


def _operations(steps: Sequence[Step]) -> tuple[Operation, ...]:
    return tuple(Operation(step.text, Number.of(step.value)) for step in steps)


def _text(event_time: int | None) -> str | None:
    return None if event_time is None else to_rfc_3339(event_time)
