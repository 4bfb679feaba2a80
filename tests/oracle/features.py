"""Ticks in the order of their log to the rows that must come of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
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
class _Entity:
    home: int
    newest: int
    same_time: int = 0
    seen: list[tuple[int, int | None]] = field(default_factory=list)
    window: list[tuple[float, ...]] = field(default_factory=list)


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
    entities: dict[tuple[str, ...], _Entity] = {}
    expected = Expected()
    for record in records:
        for index, tick in read(record, source):
            origin = (record.partition, record.offset, index)
            if isinstance(tick, str):
                expected.rejected[origin] = tick
                continue
            reason = _reason(tick, record, source, entities, homes or {})
            if reason is not None:
                expected.rejected[origin] = reason
                continue
            row = _accept(tick, record, origin, entities, features)
            expected.rows[tick.entity].append(row)
    return expected


def _reason(
    tick: Tick,
    record: Record,
    source: SourceSpec,
    entities: Mapping[tuple[str, ...], _Entity],
    homes: Mapping[tuple[str, ...], int],
) -> str | None:
    if homes.get(tick.entity, record.partition) != record.partition:
        return "wrong-partition"
    known = entities.get(tick.entity)
    if known is None:
        return None
    if known.home != record.partition:
        return "wrong-partition"
    if tick.seq is not None and (tick.tick_time, tick.seq) in known.seen:
        return "duplicate"
    if tick.tick_time < known.newest - source.skew_ns:
        return "late"
    return None


def _accept(
    tick: Tick,
    record: Record,
    origin: Origin,
    entities: dict[tuple[str, ...], _Entity],
    features: tuple[Feature, ...],
) -> OracleRow:
    known = entities.get(tick.entity)
    if known is None:
        known = entities[tick.entity] = _Entity(home=record.partition, newest=tick.tick_time)
    elif tick.tick_time > known.newest:
        known.newest, known.same_time = tick.tick_time, 0
    else:
        known.same_time += 1
    known.seen = [*known.seen, (tick.tick_time, tick.seq)][-REMEMBERED_FOR_DUPLICATES:]
    known.window = [] if tick.op == "reset" else [*known.window, tick.fields][-1024:]
    return OracleRow(
        entity=tick.entity,
        event_time=known.newest,
        sequence=known.same_time,
        tick_time=tick.tick_time,
        seq=tick.seq,
        op=tick.op,
        fields=tick.fields,
        origin=origin,
        known_at=record.timestamp_ms * 10**6,
        values=tuple(evaluate(feature, known.window) for feature in features),
    )


def evaluate(feature: Feature, window: list[tuple[float, ...]]) -> Value:
    """The feature over the last ticks of `window`; each is the tuple of a tick's fields."""
    depth = feature.n + 1 if feature.function == "volatility" else feature.n
    if len(window) < depth:
        return Value("warming", None, 0.0)
    values = [fields[feature.field] for fields in window[-depth:]]
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
