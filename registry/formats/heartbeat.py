"""The heartbeat that a worker writes to Redis once a second, for the servers of its rows."""

from __future__ import annotations

from msgspec import Struct


class PartitionLag(Struct, frozen=True):
    """How far one partition is behind: `lag` in messages, `behind_seconds` in time.

    Everything that was in the log `behind_seconds` ago is stored. `unseen_seconds` is how long ago
    the broker last gave the log's end.
    """

    topic: str
    partition: int
    next_offset: int
    end_offset: int
    lag: int
    behind_seconds: float
    unseen_seconds: float = 0.0


class CarriedPartition(Struct, frozen=True):
    """A partition of which every entity has its newest row in a row schema, or in a newer one.

    `topic_id` is the incarnation of the topic in hexadecimal.
    """

    topic_id: str
    partition: int
    schema_id: int


class Freshness(Struct, frozen=True):
    """Of the ticks that were stored in the last ten seconds, how many, and the 99th percentile of
    the seconds from the timestamp of a tick's record until it was stored.
    """

    p99_seconds: float
    ticks: int


class VerifiedPlace(Struct, frozen=True):
    """What a worker has verified of a place and a source beside its work.

    `values` were compared and `unverifiable` ones could not be, since its start. `differences` are
    on record, whoever found them, until somebody has seen to them. `at` is when it looked last,
    Unix seconds; None before it did. A place that is of no single source has none.
    """

    place: str
    source: str
    values: int
    unverifiable: int
    differences: int
    at: float | None = None


class Verified(Struct, frozen=True):
    """What a worker verifies beside its work: by place and source, and the time that it took.

    `different` says of some differences which value it is and what to do.
    """

    places: tuple[VerifiedPlace, ...] = ()
    seconds: float = 0.0
    different: tuple[str, ...] = ()


class Heartbeat(Struct, frozen=True):
    """A worker's state at `at` (Unix seconds).

    `state` is `starting`, `running`, or `retrying` while its store refuses or is unavailable;
    `error` then gives the reason and `since` the Unix seconds since when. `rejected` counts this
    process's rejected ticks by reason, `passed_over` the messages and elements of other kinds than
    its sources', `rows` the rows that it stored. `lag` has the partitions that it reads,
    `partitions` the number of partitions of each topic. `member` is its id in its consumer group.
    `warnings` are about settings of the broker that lose ticks, `strangers` about partitions that a
    member of the group holds which is no worker. `hot` is `fed`, or why the hot Redis is not fed
    with what the worker stores; "" where it has nothing to feed. `newest` has for each source the
    event time of the newest tick that this process has stored, in nanoseconds UTC. `carried` has
    those of its partitions in whose store no entity is in an older row schema than it writes.
    `freshness` is None while nothing is stored. `verified` is what an offline worker has compared
    beside its work.
    """

    sink: str
    instance: str
    pid: int
    at: float
    state: str
    since: float
    error: str = ""
    rows: int = 0
    rejected: dict[str, int] = {}
    lag: tuple[PartitionLag, ...] = ()
    partitions: dict[str, int] = {}
    member: str = ""
    warnings: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    passed_over: int = 0
    hot: str = ""
    newest: dict[str, int] = {}
    carried: tuple[CarriedPartition, ...] = ()
    freshness: Freshness | None = None
    verified: Verified = Verified()
