"""The ranges of a replay: which offsets of which partitions, and where the state comes from.

A replay must begin with the state that live had at its first offset. The cases, in the order in
which they are tried:

1. The replay was begun before and not finished: it resumes from the rows that it has stored.
2. The range begins at offset 0: this incarnation has no earlier state.
3. The database has all earlier rows, by the watermark of live or of another replay: the state is
   loaded from them.
4. The log is whole: the state is computed from its beginning, and rows before the range are not
   stored.
5. The range begins where the log does, and live has stored rows of the partition: live misses the
   same ticks, and continues with the windows of its rows.
6. The log's beginning is deleted: an error; or, if the user wants it and the database has no rows
   of the partition from which live would continue, empty windows.

Before the offset to which months were let go of, rows give no whole states: there only the cases 2
and 4 are left. What such a replay stores is in the lake already, and in Postgres once more until
the next export has merged the two.

Older incarnations of a topic exist in the database only: their rows, if any, are always the state
with which this one began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import NamedTuple

import msgspec
from aiokafka import TopicPartition

from pipelines.errors import (
    LogBegins,
    PartitionsChanged,
    RangeMistaken,
    StatesLetGo,
)
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.log_offsets import Log, logs_of, offsets_at, open_consumer
from pipelines.kafka.topics import Topic, describe
from pipelines.replay.progress import ReplayProgress
from registry.definitions import Catalog, Source
from registry.errors import RulesOfEarlierBuild
from registry.source_rules import SourceRules


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to replay; times are record timestamps in milliseconds UTC, None for no bound.

    `entities` are message keys. `cold`: begin with empty windows where the log's beginning is
    deleted.
    """

    sources: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    partition: int | None = None
    from_offset: int | None = None
    to_offset: int | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    cold: bool = False

    def __post_init__(self) -> None:
        """Raises `RangeMistaken` for a range that ends before it begins."""
        for low, high, unit in (
            (self.from_offset, self.to_offset, "offset"),
            (self.from_ms, self.to_ms, "time"),
        ):
            if low is not None and high is not None and low >= high:
                raise RangeMistaken(f"the range is empty: --from-{unit} is not before --to-{unit}")

    @property
    def has_end(self) -> bool:
        """Whether it ends before the log does."""
        return self.to_offset is not None or self.to_ms is not None

    @property
    def arguments(self) -> str:
        """What distinguishes this replay from others, as JSON."""
        given = {name: getattr(self, name) for name in self.__slots__}
        given["sources"], given["entities"] = sorted(self.sources), sorted(self.entities)
        set_ones = {name: value for name, value in given.items() if value not in (None, [], False)}
        return msgspec.json.encode(set_ones).decode()


@dataclass(frozen=True, slots=True)
class Range:
    """The offsets to read of one partition, and to store from `start` up to, not including, `end`.

    `read_from` is before `start` when the state has to be computed; `restores_since` is as in
    `replay.progress.Progress`. `begin` is before `start` when the replay is resumed. `blank` says
    that no rows before `start` count, so that no state has to be loaded. Before the offset
    `let_go_to` the lake alone has all rows.
    """

    rules: SourceRules
    topic: Topic
    partition: int
    replay: str
    begin: int
    start: int
    end: int
    read_from: int
    restores_since: int | None
    blank: bool
    let_go_to: int = 0

    @property
    def source(self) -> Source:
        return self.rules.source

    @property
    def offsets(self) -> int:
        """How many offsets there are to read."""
        return self.end - self.read_from if self.end > self.start else 0

    @property
    def resumed(self) -> bool:
        return self.start > self.begin

    def since(self, offset: int) -> Range:
        """The rest of the range once it is stored up to `offset`."""
        start = min(offset, self.end)
        computed = self.restores_since is None
        return replace(
            self,
            start=start,
            read_from=self.read_from if computed else start,
            blank=self.blank and (computed or start == self.restores_since),
        )


def replay_id(wanted: Wanted, schema_id: int) -> str:
    """The name of a replay in `tickwell.replays`: the same for the same arguments and schema."""
    return sha256(f"{schema_id} {wanted.arguments}".encode()).hexdigest()[:32]


async def plan(
    kafka: KafkaConnection,
    progress: ReplayProgress,
    catalog: Catalog,
    wanted: Wanted,
    restart: bool,
) -> list[Range]:
    """The ranges of each partition that has something to replay.

    Without a begin in `wanted` a range begins where this build has the rules that decided. With
    `restart` a replay that was begun begins again. Raises `RangeMistaken` for offsets and
    partitions that do not exist, `RulesOfEarlierBuild` for a range of which this build decides
    nothing, `LogBegins` where a state cannot be known, `TimesUnknown`, `BrokerUnavailable`,
    `StatesLetGo`, `StoreUnavailable` and other errors of `pipelines.errors`.
    """
    sources = [
        source
        for source in catalog.sources.values()
        if not wanted.sources or source.name in wanted.sources
    ]
    rules = {source.name: SourceRules.of(catalog, source.name) for source in sources}
    _check_entities(rules.values(), wanted)
    topics = await asyncio.to_thread(describe, kafka, [s.topic for s in catalog.sources.values()])
    read = {source.topic: topics[source.topic] for source in sources}
    for topic in read.values():
        settled = await asyncio.to_thread(progress.settled_partitions, topic.topic_id)
        if settled not in (None, topic.partitions):
            raise PartitionsChanged(topic.name, settled, topic.partitions)
    partitions = _partitions(read.values(), wanted.partition)

    def known_from(tp: TopicPartition) -> int:
        log = logs[tp]
        return rules[log.source.name].known_from(log.topic.topic_id, tp.partition)

    async with open_consumer(kafka) as consumer:
        logs = await logs_of(consumer, sources, read, partitions)
        _check_offsets(logs, wanted)
        begins = {tp: max(log.earliest, wanted.from_offset or 0) for tp, log in logs.items()}
        ends = {tp: min(log.end, wanted.to_offset or log.end) for tp, log in logs.items()}
        if wanted.from_ms is not None:
            for tp, offset in (await offsets_at(consumer, logs, wanted.from_ms)).items():
                begins[tp] = max(begins[tp], offset)
        if wanted.to_ms is not None:
            for tp, offset in (await offsets_at(consumer, logs, wanted.to_ms)).items():
                ends[tp] = min(ends[tp], offset)
    if wanted.from_offset is None and wanted.from_ms is None:
        for tp, begin in begins.items():
            known = known_from(tp)
            if wanted.has_end and begin < ends[tp] <= known:
                raise RulesOfEarlierBuild(logs[tp].source.name, tp.topic, tp.partition, known)
            begins[tp] = max(begin, known)

    def ranges() -> list[Range]:
        alone = not progress.older_incarnations({topic.topic_id for topic in topics.values()})
        return [
            _range(
                progress,
                rules[logs[tp].source.name],
                replay_id(wanted, catalog.writing[logs[tp].source.name]),
                _Offsets(tp.partition, logs[tp], begins[tp], ends[tp]),
                cold=wanted.cold,
                restart=restart,
                alone=alone,
            )
            for tp in partitions
            if begins[tp] < ends[tp]
        ]

    return await asyncio.to_thread(ranges)


def _check_entities(rules: Iterable[SourceRules], wanted: Wanted) -> None:
    """Raises `RangeMistaken` where the messages of an entity cannot be found by their keys."""
    for each in rules:
        if wanted.entities and any(one.source.message_key == "any" for one in each.recorded):
            raise RangeMistaken(
                f"--entity finds messages by their keys, and those of {each.source.name} may have "
                "others: replay all of it, or name other sources by --source"
            )


def _partitions(topics: Iterable[Topic], only: int | None) -> list[TopicPartition]:
    existing = [
        TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)
    ]
    chosen = [tp for tp in existing if only is None or tp.partition == only]
    if not chosen:
        counts = ", ".join(f"{topic.name} has 0 to {topic.partitions - 1}" for topic in topics)
        raise RangeMistaken(f"there is no partition {only}: {counts}")
    return chosen


def _check_offsets(logs: Mapping[TopicPartition, Log], wanted: Wanted) -> None:
    """Raises `RangeMistaken` for an offset that no partition has; one that some have is fine."""
    earliest = min(log.earliest for log in logs.values())
    end = max(log.end for log in logs.values())
    for name, offset in (("--from-offset", wanted.from_offset), ("--to-offset", wanted.to_offset)):
        if offset is not None and not earliest <= offset <= end:
            held = ", ".join(
                f"{tp.topic}[{tp.partition}] {log.earliest} to {log.end - 1}"
                for tp, log in logs.items()
                if log.end > log.earliest
            )
            raise RangeMistaken(f"{name} {offset}: the log holds {held or 'nothing'}")


class _Offsets(NamedTuple):
    """What is wanted of a partition: the offsets from `begin` up to, not including, `end`."""

    partition: int
    log: Log
    begin: int
    end: int


def _range(
    progress: ReplayProgress,
    rules: SourceRules,
    replay: str,
    offsets: _Offsets,
    *,
    cold: bool,
    restart: bool,
    alone: bool,
) -> Range:
    """The range of a partition, with its state from the first case of the module that applies.

    `alone` says that the database has no rows of other incarnations. Raises `LogBegins`, and
    `RulesOfEarlierBuild` where nobody knows what decided.
    """
    partition, log, begin, end = offsets
    topic_id = log.topic.topic_id
    begun = None if restart else progress.unfinished(replay, topic_id, partition)
    start, since, read_from = begin, None, log.earliest
    # a log that was cut meanwhile begins after the offset at which the replay would resume
    if begun is not None and begun.next_offset >= begin:
        start, since = min(begun.next_offset, end), begun.restores_since
    if since is None:
        since = 0 if start == 0 else progress.known_since(topic_id, partition, start)
    if since is None and start == log.earliest and progress.has_live(topic_id, partition):
        since = 0
    let_go_to = progress.let_go_to(topic_id, partition)
    if start < let_go_to and not (alone and start == 0):
        if log.earliest > 0 or not alone:
            raise StatesLetGo(log.topic.name, partition, start, let_go_to)
        since = None
    if since is not None:
        read_from = start
    elif log.earliest > 0:
        if not cold or progress.has_rows(topic_id, partition, log.earliest):
            raise LogBegins(log.topic.name, partition, start, log.earliest)
        if start == log.earliest:
            since, read_from = start, start
    rules.at(topic_id, partition, read_from)
    return Range(
        rules=rules,
        topic=log.topic,
        partition=partition,
        replay=replay,
        begin=begin,
        start=start,
        end=end,
        read_from=read_from,
        restores_since=since,
        blank=alone and (since is None or since == start),
        let_go_to=let_go_to,
    )
