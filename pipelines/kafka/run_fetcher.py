"""Runs straight from the bytes that an aiokafka consumer has fetched.

aiokafka makes an object of eleven attributes of every record. Here a run takes whole record batches
as columns (`kafka.record_batches`), and accounts for every offset: control markers, aborted
transactions and what compaction left out lie inside a run. A record batch is never split, so a run
holds at least `max_records` under load, and at most one batch more.

What aiokafka does with the response to a fetch is replaced, because the classes that it puts the
bytes into do not return them. aiokafka still decides about positions, leaders and pauses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from time import monotonic, time
from typing import Any

from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.errors import ConsumerStoppedError, KafkaError

from pipelines.kafka.aiokafka_patches import FetcherInternals
from pipelines.kafka.fetch_by_id import Answer, FetchById, answers, is_by_id
from pipelines.kafka.fetch_doubts import FetchDoubts
from pipelines.kafka.fetched_data import FetchedData, FetchError
from pipelines.kafka.run import Run

MAX_RECORDS = 16_384
"""Records of a run, rounded up to a record batch: larger runs gain nothing and cost memory."""

FETCH_WAIT_MS = 50
"""Milliseconds for which a broker may hold a fetch without data. A longer wait for a partition that
is drained holds up those of the same node that have data."""


class FetchPacing:
    """Begins the fetches from a node at least `seconds` apart.

    A run costs about a millisecond however small it is. Fetched as soon as there is any data, a few
    ticks at a time keep a core busy, and wait for one another for longer than `seconds`.
    """

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self._due: dict[int, float] = {}

    async def wait(self, node_id: int) -> None:
        """Wait until the next fetch from the node may begin."""
        await self._sleep(self._due.get(node_id, 0.0) - self._clock())

    def begin(self, node_id: int) -> None:
        """A fetch from the node begins."""
        self._due[node_id] = self._clock() + self._seconds

    def waive(self, node_id: int) -> None:
        """The next fetch from the node need not wait."""
        del self._due[node_id]


class RunFetcher:
    """Takes runs from a started consumer, which fetches by this object from now on.

    It fetches the topics that have `topic_ids`, by name, and no others that come to have such a
    name. `pacing` delays the fetches from a node unless more data is known to be available, or the
    last fetch brought nothing. `doubt` is called before runs are kept that may be of another
    incarnation of their topic.
    """

    def __init__(
        self,
        fetcher: FetcherInternals,
        topic_ids: Mapping[str, bytes],
        pacing: FetchPacing | None = None,
        doubt: Callable[[], None] = lambda: None,
    ) -> None:
        self._fetcher = fetcher
        self._topic_ids = topic_ids
        self._pacing = pacing or FetchPacing(0.0)
        self._doubts = FetchDoubts(doubt)
        fetcher.replace_fetch(self.fetch_from_node)

    async def fetch(
        self,
        partitions: Collection[TopicPartition],
        timeout: float,
        max_records: int = MAX_RECORDS,
    ) -> list[Run]:
        """The next run of each of `partitions` that has one; waits `timeout` seconds for the first.

        Raises what aiokafka raises when a partition cannot be read or the consumer has stopped, and
        `CorruptRecordException` for a record batch whose checksum is wrong.
        """
        deadline = monotonic() + timeout
        while True:
            if self._fetcher.closed:
                raise ConsumerStoppedError
            await self._fetcher.wait_while_rebalancing()
            runs = self._take(partitions, max_records)
            remaining = deadline - monotonic()
            if runs or remaining <= 0 or not await self._fetcher.wait_for_data(remaining):
                return runs

    def _take(self, partitions: Collection[TopicPartition], max_records: int) -> list[Run]:
        fetcher, runs = self._fetcher, list[Run]()
        for tp, fetched in list(fetcher.buffer.items()):
            if tp not in partitions:
                if not fetcher.is_assigned(tp):
                    del fetcher.buffer[tp]
                continue
            if isinstance(fetched, FetchError):
                if runs:
                    continue
                fetcher.drop(tp)
                raise fetched.error
            # aiokafka's own data, from before this object, is fetched again, and so is data for
            # another position.
            if not isinstance(fetched, FetchedData) or not fetched.is_current():
                fetcher.drop(tp)
                continue
            run = fetched.take(self._topic_ids[tp.topic], max_records, fetcher.reads_committed)
            fetched.assignment.state_value(tp).consumed_to(run.next_offset)
            if not fetched.holds_batch:
                fetcher.drop(tp)
            runs.append(run)
        return runs

    async def fetch_from_node(self, assignment: Any, node_id: int, request: Any) -> bool:
        """Fetch from one node; returns whether anything came for those who wait for data.

        aiokafka cancels it when partitions are revoked and when it stops, and takes no error.
        """
        try:
            return await self._fetch(assignment, node_id, request)
        except asyncio.CancelledError:
            return False

    async def _fetch(self, assignment: Any, node_id: int, request: Any) -> bool:
        positions = {
            TopicPartition(topic, partition): offset
            for topic, partitions in request.topics
            for partition, offset, _ in partitions
        }
        try:
            if not _is_behind(assignment, positions):
                await self._pacing.wait(node_id)
            self._pacing.begin(node_id)
            response = await self._fetcher.send(node_id, FetchById(request, self._topic_ids))
        except KafkaError:
            self._doubts.failed()
            await asyncio.sleep(self._fetcher.retry_backoff)
            return False
        if not assignment.active:
            return False
        found = list(answers(response, self._topic_ids))
        self._doubts.answered(found, is_by_id(response))
        came = refused = False
        for answer in found:
            tp = TopicPartition(answer.topic, answer.partition)
            state = assignment.state_value(tp)
            refused |= bool(answer.error_code)
            if not state.has_valid_position or state.position != positions[tp]:
                continue
            if answer.error_code:
                came |= self._keep_error(tp, state, kafka_errors.for_code(answer.error_code))
            else:
                came |= self._keep_data(tp, assignment, answer)
        if not came:
            self._pacing.waive(node_id)
        if refused:
            await asyncio.sleep(self._fetcher.retry_backoff)
        return came

    def _keep_data(self, tp: TopicPartition, assignment: Any, answer: Answer) -> bool:
        """Keep what came of a partition; returns whether anything did."""
        state = assignment.state_value(tp)
        state.highwater, state.lso = answer.highwater, answer.stable
        state.timestamp = int(time() * 1000)
        if not answer.data:
            return False
        self._fetcher.buffer[tp] = FetchedData(
            tp,
            assignment,
            state.position,
            memoryview(answer.data),
            sorted(answer.aborted, key=lambda transaction: transaction[1]),
        )
        return True

    def _keep_error(self, tp: TopicPartition, state: Any, error: Any) -> bool:
        """Keep an error that waiting does not mend, to be raised by `fetch`."""
        if issubclass(error, kafka_errors.OffsetOutOfRangeError):
            self._fetcher.reset_position(state)
            return False
        if error.retriable or error.invalid_metadata or error is kafka_errors.UnknownError:
            self._fetcher.refresh_metadata()
            return False
        self._fetcher.buffer[tp] = FetchError(
            error(f"{tp.topic}[{tp.partition}] at offset {state.position}")
        )
        return True


def _is_behind(assignment: Any, positions: Mapping[TopicPartition, int]) -> bool:
    """Whether any partition is known to have more readable data after its position."""
    states = ((assignment.state_value(tp), offset) for tp, offset in positions.items())
    return any(
        state.highwater is not None and offset < min(state.highwater, state.lso)
        for state, offset in states
    )
