"""Ticks in the order of their log to the rows that must come of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import mpmath

from tests.oracle.messages import Record, SourceSpec, Tick, read

REMEMBERED_FOR_DUPLICATES = 64
mpmath.mp.dps = 50

Origin = tuple[int, int, int]
"""(partition, offset, index)"""


@dataclass(frozen=True)
class Feature:
    """`function` is `last`, `mean` or `volatility` (of `n` log returns) of field number `field`."""

    name: str
    function: str
    field: int
    n: int

    @property
    def depth(self) -> int:
        """Ticks that must be there: n returns are of n + 1 prices."""
        return self.n + 1 if self.function == "volatility" else self.n


@dataclass(frozen=True)
class Value:
    """A feature's value, exact or None with a status, and the scale that errors are judged by."""

    status: str
    value: float | None
    magnitude: float


@dataclass(frozen=True)
class OracleRow:
    entity: tuple[str, ...]
    event_time: int
    sequence: int
    tick_time: int
    seq: int | None
    op: str
    fields: tuple[float, ...]
    origin: Origin
    known_at: int
    values: tuple[Value, ...]


@dataclass
class Entity:
    """What is known of an entity: its newest tick, and what its windows remember.

    `accepted` counts its ticks, `fill` those since its last reset or close; `closed` is whether a
    close has had no trade after it; `seen` are the (ts, seq) that make a duplicate, `window` the
    fields of the newest ticks, both oldest first.
    """

    home: int
    newest: int
    same_time: int = 0
    accepted: int = 0
    fill: int = 0
    closed: bool = False
    seen: list[tuple[int, int | None]] = field(default_factory=list)
    window: list[tuple[float, ...]] = field(default_factory=list)


@dataclass(frozen=True)
class Accepted:
    """A tick that counts. `state` is its entity just after it, and moves on with the next one."""

    entity: tuple[str, ...]
    event_time: int
    sequence: int
    tick: Tick
    origin: Origin
    known_at: int
    state: Entity


@dataclass(frozen=True)
class Rejected:
    reason: str
    origin: Origin


@dataclass
class Expected:
    """Rows by entity, in order, and the reason of each rejected tick by its origin."""

    rows: dict[tuple[str, ...], list[OracleRow]] = field(default_factory=lambda: defaultdict(list))
    rejected: dict[Origin, str] = field(default_factory=dict)


def expect(
    records: Iterable[Record],
    source: SourceSpec,
    features: tuple[Feature, ...],
    homes: Mapping[tuple[str, ...], int] | None = None,
) -> Expected:
    """What must come of `records`, which are those of one topic, each partition in its order.

    `homes` says which partition an entity settled in where producers disagree; who is first there
    is a matter of arrival that the records do not tell.
    """
    log = Log(lambda record: source, homes)
    expected = Expected()
    for record in records:
        for found in log.take(record):
            if isinstance(found, Rejected):
                expected.rejected[found.origin] = found.reason
            else:
                expected.rows[found.entity].append(_row(found, features))
    return expected


class Log:
    """The records of a topic, taken one after the other, each partition in its order.

    `source` is what the source was declared to be where a record stands.
    `entities` is what is known after the records so far; of each the `remembered` newest ticks.
    """

    def __init__(
        self,
        source: Callable[[Record], SourceSpec],
        homes: Mapping[tuple[str, ...], int] | None = None,
        remembered: int = 1024,
    ) -> None:
        self.entities: dict[tuple[str, ...], Entity] = {}
        self._source = source
        self._homes = homes or {}
        self._remembered = remembered

    def take(self, record: Record) -> Iterator[Accepted | Rejected]:
        """What comes of the next record, tick by tick."""
        source = self._source(record)
        for index, tick in read(record, source):
            origin = (record.partition, record.offset, index)
            reason = tick if isinstance(tick, str) else self._reason(tick, record, source)
            if isinstance(tick, str) or reason is not None:
                yield Rejected(str(reason), origin)
            else:
                yield self._accept(tick, record, origin)

    def _reason(self, tick: Tick, record: Record, source: SourceSpec) -> str | None:
        if self._homes.get(tick.entity, record.partition) != record.partition:
            return "wrong-partition"
        known = self.entities.get(tick.entity)
        if known is None:
            return None
        if known.home != record.partition:
            return "wrong-partition"
        if tick.seq is not None and (tick.tick_time, tick.seq) in known.seen:
            return "duplicate"
        if tick.tick_time < known.newest - source.skew_ns:
            return "late"
        return None

    def _accept(self, tick: Tick, record: Record, origin: Origin) -> Accepted:
        known = self.entities.get(tick.entity)
        if known is None:
            known = Entity(home=record.partition, newest=tick.tick_time)
            self.entities[tick.entity] = known
        elif tick.tick_time > known.newest:
            known.newest, known.same_time = tick.tick_time, 0
        else:
            known.same_time += 1
        known.accepted += 1
        known.seen.append((tick.tick_time, tick.seq))
        del known.seen[:-REMEMBERED_FOR_DUPLICATES]
        if tick.op == "trade":
            known.closed = False
            known.fill += 1
            known.window.append(tick.fields)
            del known.window[: -self._remembered]
        else:
            known.closed = known.closed or tick.op == "close"
            known.fill = 0
            known.window.clear()
        return Accepted(
            entity=tick.entity,
            event_time=known.newest,
            sequence=known.same_time,
            tick=tick,
            origin=origin,
            known_at=record.timestamp_ms * 10**6,
            state=known,
        )


def _row(found: Accepted, features: tuple[Feature, ...]) -> OracleRow:
    state = found.state
    return OracleRow(
        entity=found.entity,
        event_time=found.event_time,
        sequence=found.sequence,
        tick_time=found.tick.tick_time,
        seq=found.tick.seq,
        op=found.tick.op,
        fields=found.tick.fields,
        origin=found.origin,
        known_at=found.known_at,
        values=tuple(evaluate(feature, state.window, state.closed) for feature in features),
    )


def evaluate(feature: Feature, window: list[tuple[float, ...]], closed: bool = False) -> Value:
    """The feature over the last ticks of `window`; each is the tuple of a tick's fields."""
    if closed:
        return Value("closed", None, 0.0)
    if len(window) < feature.depth:
        return Value("warming", None, 0.0)
    values = [fields[feature.field] for fields in window[-feature.depth :]]
    if any(math.isnan(value) for value in values):
        return Value("undefined", None, 0.0)
    magnitude = max(abs(value) for value in values)
    if feature.function == "last":
        return Value("ok", values[-1], magnitude)
    if feature.function == "mean":
        return Value("ok", float(sum(map(Fraction, values)) / len(values)), magnitude)
    return _volatility(tuple(values))


@lru_cache(100_000)
def _log(price: float) -> mpmath.mpf:
    return mpmath.log(mpmath.mpf(price))


@lru_cache(100_000)
def _volatility(prices: tuple[float, ...]) -> Value:
    """Sample standard deviation (ddof = 1) of the log returns, to fifty digits."""
    if any(price <= 0 for price in prices):
        return Value("undefined", None, 0.0)
    logs = [_log(price) for price in prices]
    returns = [after - before for before, after in pairwise(logs)]
    mean = mpmath.fsum(returns) / len(returns)
    variance = mpmath.fsum((r - mean) ** 2 for r in returns) / (len(returns) - 1)
    magnitude = max(float(abs(r)) for r in returns)
    return Value("ok", float(mpmath.sqrt(variance)), magnitude)
