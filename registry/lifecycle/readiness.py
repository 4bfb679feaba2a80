"""Whether a version can take the place of the active one, for reads and for history.

It can where it has values of all that the active one has values of. Of what came before its first
tick a person may do without; not of an entity whose newest row lacks it, which would be `missing`
for everybody who asks. A derived version has what the versions have that it is computed of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from registry.definitions import FeatureVersion
from registry.errors import NotCovered
from registry.formats.heartbeat import Heartbeat
from registry.lifecycle.changing import Change
from registry.lifecycle.coverage import (
    Behind,
    Holes,
    behind,
    coverage,
    let_go_of,
    united,
    without,
)
from registry.lifecycle.states import version_of

MOST_SHOWN = 5
"""Number of partitions that an error names."""

BACKFILL = (
    "compute them by `tickwell backfill {}`, or activate it with --without-history (over HTTP "
    "`without_history`) if nobody needs them"
)
FILL = "compute them by `tickwell backfill {}`"
LET_GO = (
    "their ticks are in the lake alone, where it stays `missing`; activate it with "
    "--without-history (over HTTP `without_history`) if nobody needs them"
)
WAIT = "workers that run are about it, so ask again in a moment; `tickwell status` shows them"
OTHER_SOURCE = (
    "they are of another source; activate it with --without-history (over HTTP `without_history`) "
    "if nobody needs them"
)


def check_ready(
    change: Change,
    ref: str,
    without_history: bool = False,
    heartbeats: Iterable[Heartbeat] | None = None,
) -> None:
    """Check that the version `ref` can be activated.

    `heartbeats` are those of the online workers, which know what Redis has; without them Redis is
    not looked at. Raises `NotCovered` with what is missing, and `UnknownVersion`.
    """
    known = change.known
    feature = version_of(known, ref)
    active = known.features.get(f"{feature.name}@{known.active.get(feature.name)}")
    if active is None or active == feature:
        return
    beats = None if heartbeats is None else list(heartbeats)
    for part, against in _compared(change, feature, active):
        _check_history(change, part, against, without_history)
        _check_newest(change, part, beats)


def _compared(
    change: Change, feature: FeatureVersion, active: FeatureVersion
) -> Iterator[tuple[FeatureVersion, Sequence[FeatureVersion]]]:
    """The stored versions that are read from then on, each with what the active version reads.

    That is what it reads of the same source, or else what it reads under the same name: its value
    of a tick needs them all. It is nothing where the active version reads nothing of the source.
    """
    if not feature.derived:
        yield feature, [active]
        return
    features, before = change.known.features, active.pins
    for name, pin in feature.pins.items():
        if pin not in active.parts and pin in features:
            part, read = features[pin], [features[ref] for ref in active.parts if ref in features]
            of_source = [one for one in read if one.source == part.source]
            yield part, of_source or [one for one in read if one.ref == before.get(name)]


def _check_history(
    change: Change,
    feature: FeatureVersion,
    against: Sequence[FeatureVersion],
    without_history: bool,
) -> None:
    connection, known = change.connection, change.known
    own = [one for one in coverage(connection, known, feature.ref) if one.is_current]
    if any(one.source != feature.source for one in against):  # offsets of two topics
        others = coverage(connection, known, against[0].ref)
        lacking = [Holes(o.partition, o.covered) for o in others if o.is_current and o.covered]
        if lacking and not without_history:
            raise NotCovered(feature.ref, _shown(lacking), OTHER_SOURCE)
        return
    wanted = {one.partition: united([one.stored]) for one in own}
    for other in against:
        for one in coverage(connection, known, other.ref):
            ranges = wanted.get(one.partition, ())  # a partition may have its first tick meanwhile
            wanted[one.partition] = without(ranges, without(ranges, one.covered))
    lacking, let_go = [], let_go_of(connection)
    for one in own:
        first = one.covered[0].begin if one.covered else None
        ranges = tuple(
            range_
            for range_ in without(wanted[one.partition], one.covered)
            if not without_history or (first is not None and range_.begin > first)
        )
        if ranges:
            lacking.append(Holes(one.partition, ranges))
    if lacking:
        gone = {one.partition: let_go(one) for one in own}
        if not any(without(one.ranges, gone[one.partition]) for one in lacking):
            raise NotCovered(feature.ref, _shown(lacking), LET_GO)
        advice = FILL if without_history else BACKFILL
        raise NotCovered(feature.ref, _shown(lacking), advice.format(feature.ref))


def _check_newest(
    change: Change, feature: FeatureVersion, heartbeats: list[Heartbeat] | None
) -> None:
    """Raises `NotCovered` where the newest rows of entities may lack a version."""
    connection, known = change.connection, change.known
    covered = coverage(connection, known, feature.ref)
    looked = behind(connection, known, feature.ref, heartbeats or ())
    # Entities that had their last tick before the topic was made anew are at home in partition 0.
    first = next((one.partition for one in looked), None)
    homes = [(one.partition if one.is_current else first, one) for one in covered]
    stored = {home for home, _ in homes}
    # Where it has values of all that is stored, every newest row in Postgres has it.
    partial = {home for home, one in homes if one.live != united([one.stored])}

    def late(one: Behind) -> Behind:
        return one._replace(
            offline=one.offline and one.partition in partial,
            online=heartbeats is not None and one.online is not False,
        )

    found = [late(one) for one in looked if one.partition in stored]
    postgres, redis = any(one.offline for one in found), any(one.online for one in found)
    if postgres or redis:
        stores = " and ".join(["Postgres"] * postgres + ["Redis"] * redis)
        count = sum(1 for one in found if one.offline or one.online)
        topic = found[0].partition.topic
        what = f"newest rows of entities in {count} partitions of {topic} ({stores})"
        raise NotCovered(feature.ref, what, WAIT)


def _shown(lacking: list[Holes]) -> str:
    shown = "; ".join(
        f"{one.partition.topic}[{one.partition.partition}] offsets "
        + ", ".join(f"{range_.begin} to {range_.end - 1}" for range_ in one.ranges)
        for one in lacking[:MOST_SHOWN]
    )
    more = len(lacking) - MOST_SHOWN
    return shown + (f"; and {more} partitions more" if more > 0 else "")
