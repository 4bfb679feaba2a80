"""Whether a version can take the place of the active one, for reads and for history.

It can where it has values of all that the active one has values of. Of what came before its first
tick a person may do without; not of an entity whose newest row lacks it, which would be `missing`
for everybody who asks.
"""

from __future__ import annotations

from collections.abc import Iterable

from registry.errors import NotCovered
from registry.formats.heartbeat import Heartbeat
from registry.lifecycle.changing import Change
from registry.lifecycle.coverage import Holes, behind, coverage, holes, united
from registry.lifecycle.states import version_of

MOST_SHOWN = 5
"""Number of partitions that an error names."""


def check_ready(
    change: Change,
    ref: str,
    without_history: bool = False,
    heartbeats: Iterable[Heartbeat] = (),
) -> None:
    """Check that the version `ref` can be activated.

    `heartbeats` are those of the online workers, which know what Redis has. Raises `NotCovered`
    with what is missing, and `UnknownVersion`.
    """
    connection, known = change.connection, change.known
    feature = version_of(known, ref)
    if known.active.get(feature.name) is None:
        return
    covered = {one.partition: one for one in coverage(connection, known, ref)}
    lacking = []
    for one in holes(connection, known, feature.name, feature.version):
        begins = [part.begin for part in covered[one.partition].covered]
        first = begins[0] if begins else None
        ranges = tuple(
            range_
            for range_ in one.ranges
            if not without_history or (first is not None and range_.begin > first)
        )
        if ranges:
            lacking.append(Holes(one.partition, ranges))
    if lacking:
        raise NotCovered(ref, _shown(lacking), without_history)
    # Where it has values of all that is stored, every newest row in Postgres has it.
    partial = {one.partition for one in covered.values() if one.live != united([one.stored])}
    late = [
        one._replace(offline=one.offline and one.partition in partial)
        for one in behind(connection, known, ref, heartbeats)
        if one.partition in covered
    ]
    late = [one for one in late if one.offline or one.online]
    if late:
        stores = [
            name
            for name, is_late in (
                ("Postgres", any(one.offline for one in late)),
                ("Redis", any(one.online for one in late)),
            )
            if is_late
        ]
        raise NotCovered(
            ref,
            f"newest rows of entities in {len(late)} partitions of {late[0].partition.topic} "
            f"({' and '.join(stores)})",
            True,
        )


def _shown(lacking: list[Holes]) -> str:
    shown = "; ".join(
        f"{one.partition.topic}[{one.partition.partition}] offsets "
        + ", ".join(f"{range_.begin} to {range_.end - 1}" for range_ in one.ranges)
        for one in lacking[:MOST_SHOWN]
    )
    more = len(lacking) - MOST_SHOWN
    return shown + (f"; and {more} partitions more" if more > 0 else "")
