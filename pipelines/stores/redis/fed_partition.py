"""What a worker knows of one partition that it feeds to hot, and when the mark may live.

Warm is ahead of hot from the moment at which a run begins to be stored, whose first rows may be
read before its last ones are written, up to the moment at which hot has them. So hot has all that
warm had *as of* the earliest of these moments: when the oldest run that waits began to be stored,
when the run under way did, when warm was looked at. The mark ends `MARK_MS` after it.

Nothing is known any more, and the token is given up, after anything that was not expected. What
waited is forgotten then: no row under that token is believed again.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import NamedTuple

from pipelines.stores.redis.hot_redis import Rows
from registry.formats.hot import MARK_MS, TOKEN_BYTES, mark_key

LATE_SECONDS = 0.75 * MARK_MS / 1000
"""How far hot may be behind warm before its token is given up: the mark would end soon anyway."""

MOST_WAITING = 200_000
"""Entities that wait to be fed, with about 150 bytes each. More are forgotten."""


NOTHING = "warm has nothing of it"
"""Why a partition has no token that was never stored: there is no row to be believed."""

MOVED = "warm's watermark is not where this worker left it"
ANOTHER_SINK = "another sink writes it"
DISPLACED = MOVED, ANOTHER_SINK
"""Why no token begins until this worker is known to write the partition: another one does. Two that
begin tokens would void each other's for ever."""


class Look(NamedTuple):
    """What warm says of a partition.

    Its watermark, None for none; the token of the sink that writes it, and how much that has
    written, which a single server has; the id of the topic's current incarnation; whether a rebuild
    is writing its entities.
    """

    watermark: int | None
    writer: bytes
    incarnation: bytes
    is_restored: bool


class Waiting(NamedTuple):
    """Rows of a run that began to be stored at a moment, in seconds."""

    rows: Rows
    since: float


class FedPartition:
    """One partition of a topic. Not safe for several threads."""

    def __init__(self, topic: str, topic_id: bytes, partition: int) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.partition = partition
        self.mark = mark_key(topic_id, partition)
        self.token: bytes | None = None
        """Under which hot is fed; None while it is not."""
        self.why = "it begins"
        """Why there is no token."""
        self.is_assigned = False
        self.behind_until = 0.0
        """Up to when no token begins, as the worker has stored an old run."""
        self.given_up: list[bytes] = []
        """Tokens whose marks may still live."""
        self.waiting: deque[Waiting] = deque()
        self._entities = 0
        self._under_way: tuple[int | None, float] | None = None
        """Where the run that is being stored ends, None once that is not known to be what warm gets
        next, and since when it is."""
        self._stored_to: int | None = None
        """Where the last run that warm confirmed ends; None where nothing is known."""
        self._expected: set[int] = set()
        """The watermarks that a look may find which is under way."""
        self._is_certain = True
        """Whether no run that failed may be stored yet, late, by a command that is on its way."""
        self._displaced: str | None = None
        """Why another worker seems to write the partition."""
        self.era = 0
        """How often what was known before has become void: a look of before says nothing then."""
        self._writer = b""
        """What warm says of who writes, when the token began, and then of the sink alone."""

    # -- what the sink tells

    def storing(self, base: int, end: int, now: float) -> None:
        """A run begins to be stored."""
        self._under_way = (end, now)
        self._writer = self._writer.partition(b":")[0]  # its number counts what is stored
        self._expected |= {base, end} if self._stored_to is None else {end}

    def stored(self, rows: Rows, end: int) -> None:
        """Warm has confirmed the run that was under way."""
        since = self._under_way[1] if self._under_way else 0.0
        self._under_way, self._stored_to, self._is_certain = None, end, True
        self._is_the_writer()
        self._wait(rows, since)

    def carried(self, rows: Rows, since: float) -> None:
        """Warm has confirmed rows of the same ticks in a newer row schema, sent at a moment."""
        self._wait(rows, since)

    def _wait(self, rows: Rows, since: float) -> None:
        if self.token is None or not len(rows.names):
            return
        self.waiting.append(Waiting(rows, since))
        self._entities += len(rows.names)
        if self._entities > MOST_WAITING:
            self.give_up("too many rows wait")

    def behind(self, until: float) -> None:
        """The worker is behind: what it stores is late anyway, and more follows at once."""
        self.behind_until = until
        self.give_up("the worker is behind")

    def failed(self, why: str) -> None:
        """Warm has refused the run, or has not answered: it may still be stored, or a part of it.

        No token begins before the next run is stored: the late one is refused then.
        """
        self._is_certain = False
        self.forget(why)
        self._under_way = None

    def begun(self, why: str) -> None:
        """The sink has begun anew: what was sent before is refused from now on."""
        self._is_certain = True
        self._is_the_writer()
        self.forget(why)

    def assigned(self, why: str) -> None:
        """The partition is this worker's, or another's, from now on."""
        self._is_the_writer()
        self.forget(why)

    def _is_the_writer(self) -> None:
        if self._displaced is not None:
            self._displaced = None
            self.era += 1

    def forget(self, why: str) -> None:
        """Warm may have changed without this worker. A run that is being stored still is."""
        self._stored_to = None
        if self._under_way is not None:
            self._under_way = None, self._under_way[1]
        self._expected.clear()
        self.era += 1
        self.give_up(why)

    # -- what the feed does

    def fed(self, runs: int) -> None:
        """Hot has the rows of so many runs, those that waited longest."""
        for _ in range(runs):
            self._entities -= len(self.waiting.popleft().rows.names)

    def give_up(self, why: str) -> None:
        """Believe no row that hot has of the partition; what waits need not be fed then."""
        self.why = why
        if self.token is not None:
            self.given_up.append(self.token)
        self.token = None
        self.waiting.clear()
        self._entities = 0

    def doubt(self, why: str) -> None:
        """Warm is not as was expected, or too slow.

        A token begins at what it says next, unless another worker seems to write the partition.
        """
        self._stored_to = None
        if why in DISPLACED:
            self._displaced = why
        self.give_up(why)

    def begin_look(self) -> None:
        """Warm is about to be looked at."""
        ends = (self._stored_to, self._under_way[0] if self._under_way else None)
        self._expected = {end for end in ends if end is not None}

    def judge(self, look: Look) -> str | None:
        """Why the mark must not live, None where warm is as this worker has left it."""
        if look.incarnation not in (b"", self.topic_id.hex().encode()):
            return "the topic was recreated"
        if look.is_restored:
            return "a rebuild writes its entities"
        if look.watermark is None:
            return NOTHING
        if self._expected and look.watermark not in self._expected:
            return MOVED
        if self.token is None and self._displaced is not None:
            return self._displaced
        if self.token is None:
            return None if self._is_certain else "a run may be stored late"
        writer = look.writer if b":" in self._writer else look.writer.partition(b":")[0]
        return None if writer == self._writer else ANOTHER_SINK

    def begin(self, look: Look) -> bytes:
        """A new token, as of a look."""
        self._writer = look.writer
        if self._under_way:
            self._writer = look.writer.partition(b":")[0]
        if self._stored_to is None:
            self._stored_to = look.watermark
        self.token = secrets.token_bytes(TOKEN_BYTES)
        return self.token

    def as_of(self, looked_at: float) -> float:
        """The moment as of which hot has all that warm had, if that was looked at then."""
        moments = [looked_at]
        if self._under_way:
            moments.append(self._under_way[1])
        if self.waiting:
            moments.append(self.waiting[0].since)
        return min(moments)
