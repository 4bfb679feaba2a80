"""The worker's side of hot: what warm has confirmed is fed, and marks say that it was.

A sink tells `HotFeed` when it begins to store a run, and what came of it. A thread of its own feeds
what warm has confirmed, in that order, and every `RENEW_SECONDS` looks at warm and renews the mark
of each partition (`registry.formats.hot` says what a mark means). The sink never waits for it:

- A partition of which hot is too far behind, or too much waits, loses its token. Nothing is fed
  until a new token begins, after a pause.
- So does one of which a run is stored that is older than `BEHIND_SECONDS`: a worker that catches up
  needs its processor for that, and its rows are late in hot as in warm. So a topic whose producers
  stamp their records with old times (`CreateTime`) is never fed; servers read it in warm.
- So do all partitions where feeding takes more than `MOST_SHARE` of a processor. Each such pause is
  twice as long as the one before.

A partition gets a new token whenever it is assigned, and after every refusal, error and unknown
answer, of warm or of hot: rows that were put in before are void. Tokens never come back, so a
worker that was paused, or that another one has replaced, can neither write nor renew: the mark
holds another token.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import Event, Lock

from pipelines.errors import StoreUnavailable
from pipelines.kafka.run import Run
from pipelines.stores.redis.fed_partition import LATE_SECONDS, NOTHING, FedPartition, Look
from pipelines.stores.redis.hot_redis import Fed, HotRedis, Mark, Rows
from pipelines.stores.redis.warm_look import WarmLook
from registry.formats.hot import RENEW_SECONDS

logger = logging.getLogger(__name__)

MOST_SHARE = 0.2
"""The part of a processor's time that feeding may take in this process; in hot it takes about as
much."""

SHARE_SECONDS = 1.0
"""Seconds over which that is taken."""

BEHIND_SECONDS = 5.0
"""The age of a run, by the newest timestamp of its records, from which it is not fed, and the time
for which nothing of its partition is then. Servers call rows as old as that lagging."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds without feeding after it took too much."""

FED = "fed"
"""The state of a feed all of whose partitions have a live mark."""


class HotFeed:
    """Feeds `hot` with what `warm` has confirmed.

    `clock` is monotonic, in seconds, and `wall_clock` in Unix seconds.

    `assigned`, `storing`, `stored`, `carried`, `failed` and `begun` may be called by any thread,
    and return at once.
    """

    def __init__(
        self,
        hot: HotRedis,
        warm: WarmLook,
        clock: Callable[[], float] = time.monotonic,
        renew_seconds: float = RENEW_SECONDS,
        most_share: float = MOST_SHARE,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._hot = hot
        self._warm = warm
        self._clock = clock
        self._renew_seconds = renew_seconds
        self._most_share = most_share
        self._wall_clock = wall_clock
        self._lock = Lock()
        self._wake = Event()
        self._partitions: dict[tuple[bytes, int], FedPartition] = {}
        self._renew_at = self._paused_until = self._share_since = clock()
        self._pause = FIRST_PAUSE
        self._fed_seconds = 0.0
        self._error: str | None = None
        self._lost = deque[Rows]()
        """Rows that hot must not have, whoever has put them in."""

    @property
    def state(self) -> str:
        """`FED`, or why hot is not fed; "" with nothing to feed. Any thread may read it."""
        with self._lock:
            assigned = [one for one in self._partitions.values() if one.is_assigned]
            if self._error is not None and assigned:
                return self._error
            held = [one for one in assigned if one.token is not None or one.why != NOTHING]
            return next((one.why for one in held if one.token is None), FED) if held else ""

    # -- what the sinks tell

    def assigned(self, partitions: Iterable[tuple[str, bytes, int]]) -> None:
        """These partitions (topic, its id, number), and no others, are this worker's from now on.

        Nothing that was known of them is valid any more.
        """
        with self._lock:
            for one in self._partitions.values():
                one.is_assigned = False
                one.assigned("its partitions are assigned again")
            for topic, topic_id, number in partitions:
                one = self._partition(topic, topic_id, number)
                one.is_assigned = True
        self._renew_at = self._clock()
        self._wake.set()

    def storing(self, run: Run) -> None:
        """A run begins to be stored in warm."""
        with self._lock:
            one = self._partition(run.topic, run.topic_id, run.partition)
            now = self._clock()
            one.storing(run.base_offset, run.next_offset, now)
            if self._is_old(run):
                one.behind(now + BEHIND_SECONDS)

    def _is_old(self, run: Run) -> bool:
        """By its newest record: in which order producers have stamped them is theirs to say."""
        if not len(run.timestamps):
            return False
        return self._wall_clock() - float(run.timestamps.max()) / 1_000 > BEHIND_SECONDS

    def stored(self, run: Run, rows: Rows) -> None:
        """Warm has confirmed a run, whose entities now have these rows, whole."""
        with self._lock:
            one = self._partition(run.topic, run.topic_id, run.partition)
            one.stored(rows, run.next_offset)
            waits = bool(one.waiting)
        if waits:
            self._wake.set()

    def now(self) -> float:
        """The moment, in seconds, of which `carried` is told."""
        return self._clock()

    def carried(
        self, topic: str, topic_id: bytes, partition: int, rows: Rows, since: float
    ) -> None:
        """Warm has, since a moment, these rows of the same ticks in a newer row schema.

        A partition that is not this worker's any more is fed by another one, which does not know of
        them: there hot loses the rows, and whoever wants them reads warm.
        """
        with self._lock:
            one = self._partition(topic, topic_id, partition)
            if one.is_assigned:
                one.carried(rows, since)
            else:
                self._lost.append(rows)
        self._wake.set()

    def failed(self, run: Run) -> None:
        """Warm has refused a run, or a part of it, or it is not known whether it did."""
        with self._lock:
            self._partition(run.topic, run.topic_id, run.partition).failed("warm refused a run")
        self._wake.set()

    def begun(self, topic_id: bytes, partition: int) -> None:
        """The sink has become the writer of a partition: another one may have been."""
        with self._lock:
            one = self._partitions.get((topic_id, partition))
            if one is not None:
                one.begun("the sink begins to write it")
        self._wake.set()

    def _partition(self, topic: str, topic_id: bytes, number: int) -> FedPartition:
        key = (topic_id, number)
        if key not in self._partitions:
            self._partitions[key] = FedPartition(topic, topic_id, number)
        return self._partitions[key]

    # -- the thread

    def run(self, stop: Event) -> None:
        """Feed hot until `stop` is set; then the marks are ended, if hot answers."""
        self._give_up_all("feeding begins")
        while not stop.is_set():
            self._wake.wait(max(0.0, min(self._renew_at - self._clock(), self._renew_seconds)))
            self._wake.clear()
            self.turn()
        self._give_up_all("the worker stops")
        self._tell(self._end_marks)
        self._hot.close()
        self._warm.close()

    def turn(self) -> None:
        """Feed what waits, and renew the marks if it is time."""
        self._tell(self._drop)
        self._tell(self._feed)
        if self._clock() >= self._renew_at:
            self._renew_at = self._clock() + self._renew_seconds
            self._tell(self._renew)
        self._tell(self._end_marks)

    def _tell(self, work: Callable[[], None]) -> None:
        """Do what calls hot. After an error nothing is known: all tokens are given up."""
        try:
            work()
        except StoreUnavailable as error:
            if self._error is None:
                logger.warning("hot is not fed: %s", error)
            self._error = str(error)
            self._give_up_all(str(error))

    def _give_up_all(self, why: str) -> None:
        with self._lock:
            for one in self._partitions.values():
                one.give_up(why)

    def _end_marks(self) -> None:
        with self._lock:
            ended = [
                (one.mark, token) for one in self._partitions.values() for token in one.given_up
            ]
            for one in self._partitions.values():
                one.given_up.clear()
        if ended and self._error is None:
            self._hot.end(ended)

    def _drop(self) -> None:
        while self._lost:  # others only append to it
            self._hot.drop(self._lost[0])
            self._lost.popleft()

    def _feed(self) -> None:
        with self._lock:
            waiting = [
                (one, Fed(one.mark, one.token, [each.rows for each in one.waiting]))
                for one in self._partitions.values()
                if one.token is not None and one.waiting
            ]
        if not waiting:
            self._judge_share(0.0)
            return
        began = time.thread_time()
        alive = self._hot.feed([fed for _, fed in waiting])
        with self._lock:
            for (one, fed), lives in zip(waiting, alive, strict=True):
                if one.token != fed.token:
                    continue
                if lives:
                    one.fed(len(fed.rows))
                else:
                    one.give_up("hot has lost its mark")
        self._judge_share(time.thread_time() - began)

    def _judge_share(self, processor_seconds: float) -> None:
        """Pause where feeding takes too much."""
        now = self._clock()
        self._fed_seconds += processor_seconds
        if self._fed_seconds > self._most_share * SHARE_SECONDS:
            self._give_up_all("feeding takes too much, as while much is stored")
            logger.info("hot is not fed for %g s: that takes too much of a processor", self._pause)
            self._paused_until = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        elif now - self._share_since < SHARE_SECONDS:
            return
        elif now > self._paused_until + self._pause:
            self._pause = FIRST_PAUSE
        self._share_since, self._fed_seconds = now, 0.0

    def _renew(self) -> None:
        """Look at warm, and renew the marks of the partitions where it is as it was left."""
        with self._lock:
            partitions = [one for one in self._partitions.values() if one.is_assigned]
            for one in partitions:
                one.begin_look()
            before = [(one.token, one.era) for one in partitions]
        if not partitions:
            return
        looked_at = self._clock()
        looks: Sequence[Look | None]
        try:
            looks = self._warm.of(partitions)
        except StoreUnavailable:  # the sink reports it, and the marks end
            looks = [None] * len(partitions)
        with self._lock:
            marks = [
                self._marked(one, look, looked_at)
                for one, look, known in zip(partitions, looks, before, strict=True)
                if (one.token, one.era) == known
            ]
        self._send([mark for mark in marks if mark is not None])

    def _marked(
        self, one: FedPartition, look: Look | None, looked_at: float
    ) -> tuple[FedPartition, Mark] | None:
        """The mark of a partition that is to be renewed or begun, None where it must not be."""
        now, as_of = self._clock(), one.as_of(looked_at)
        why = None if look is None else one.judge(look)
        if why is None and now - as_of > LATE_SECONDS:
            why = "hot or warm is slow"
        if why is not None:
            one.doubt(why)
        is_new = one.token is None
        too_early = is_new and now < max(self._paused_until, one.behind_until)
        if why is not None or look is None or too_early:
            return None
        token = one.token or one.begin(look)
        return one, Mark(one.mark, token, as_of, is_new)

    def _send(self, marks: Sequence[tuple[FedPartition, Mark]]) -> None:
        alive = self._hot.marks([mark for _, mark in marks])
        if self._error is not None and marks:
            logger.info("hot is fed again")
            self._error = None
        with self._lock:
            for (one, mark), lives in zip(marks, alive, strict=True):
                if not lives and one.token == mark.token:
                    one.give_up("hot has lost its mark")
                    self._renew_at = self._clock()
