"""What can go wrong between a topic and a store.

A message says what was wrong, with which value, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class PipelineError(Exception):
    """Any error of the pipeline."""


class StoreUnavailable(PipelineError):
    """The store did not answer, or refused for a reason that passes. Wait, and retry."""


class RedisEvicts(StoreUnavailable):
    """The warm Redis removes keys when it is full. It is waited for: the policy may be changed."""

    def __init__(self, policy: str) -> None:
        super().__init__(
            f"Redis has maxmemory-policy {policy}: once it is full it removes values and window "
            "states, so nothing is written to it. Set it to noeviction, by `CONFIG SET "
            "maxmemory-policy noeviction` and in its configuration (a managed server has it among "
            "its parameters), or point TICKWELL_REDIS at another server; a cache belongs in "
            "TICKWELL_REDIS_HOT"
        )


class RedisTooOld(StoreUnavailable):
    """The warm Redis does not run the scripts. It is waited for: another one may take its place."""

    def __init__(self, version: str, oldest: str) -> None:
        super().__init__(
            f"Redis is of version {version}, and {oldest} is the oldest one that runs the scripts "
            "by which values are stored: point TICKWELL_REDIS at a newer Redis, or at a Valkey"
        )


class SchemaRegistryUnavailable(StoreUnavailable):
    """The schema registry did not answer, or refused. It says nothing of a message: wait."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"the schema registry at {url}: {why}")


class FormatUnreadable(PipelineError):
    """Something is missing here that a source's format needs."""


class PartitionHeld(StoreUnavailable):
    """Another session holds a lock that this one needs, for longer than it should."""


class RowsAlreadyStored(PipelineError):
    """Rows of a run are stored already."""


class WatermarkMoved(PipelineError):
    """The partition's stored watermark is not where the run begins; None when it is missing."""

    def __init__(self, watermark: int | None) -> None:
        super().__init__(f"the stored watermark is {watermark}")
        self.watermark = watermark


class StoreWentBack(PipelineError):
    """The store has lost what it had confirmed."""

    def __init__(self, topic: str, partition: int, watermark: int | None, base: int) -> None:
        found = (
            "or its mark that it was filled is missing" if watermark is None else f"is {watermark}"
        )
        super().__init__(
            f"the store's watermark of {topic}[{partition}] {found}, but it had confirmed {base}: "
            "it lost its last writes. The worker ends; once restarted, it resumes at the store's "
            "watermark"
        )


class BrokerUnavailable(PipelineError):
    """The Kafka broker did not answer, or refused."""

    def __init__(self, bootstrap: str, why: str) -> None:
        super().__init__(
            f"Kafka at {bootstrap}: {why}; is it running, and is TICKWELL_KAFKA right?"
        )


class BrokerRefused(BrokerUnavailable):
    """A broker is there, and does not take this client: its user, its certificate or its protocol.

    It is waited for as well: whoever mends it may do so at the broker, and a broker that starts may
    not know its users yet.
    """

    def __init__(self, servers: str, why: str) -> None:
        PipelineError.__init__(self, f"Kafka at {servers}: {why}")


class RightMissing(BrokerRefused):
    """The cluster's ACLs do not allow what is asked of it. It is waited for: a right may come."""

    def __init__(self, servers: str, operation: str, resource: str, what: str = "") -> None:
        super().__init__(
            servers,
            f"{what}this user has no right to {operation} on {resource}: give it the right by an "
            "ACL",
        )


class ReplicasRefused(BrokerRefused):
    """The cluster cannot have so many replicas of a partition; `why` has its number of brokers."""

    def __init__(self, servers: str, topic: str, why: str) -> None:
        super().__init__(
            servers,
            f"the topic {topic} cannot be made: {why.rstrip('.')}. Set TICKWELL_REPLICATION to the "
            "number of brokers or less",
        )


class SessionRefused(PipelineError):
    """The broker does not allow a session of this length."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the broker refuses a session of {seconds:g} s: set TICKWELL_SESSION between its "
            "group.min.session.timeout.ms and group.max.session.timeout.ms"
        )


class TopicMissing(PipelineError):
    """A topic that a source reads does not exist."""

    def __init__(self, topic: str, bootstrap: str) -> None:
        super().__init__(f"Kafka at {bootstrap} has no topic {topic}: run `tickwell migrate`")


class PartitionsChanged(PipelineError):
    """Keys have moved to other partitions, so that the order of every entity is broken."""

    def __init__(self, topic: str, was: int, now: int) -> None:
        super().__init__(
            f"{topic} had {was} partitions and has {now}: entities moved to other partitions, and "
            "their ticks would be rejected as wrong-partition. Create a topic with the new number "
            "of partitions, copy the ticks to it, and name it in features.toml"
        )


class TopicRecreated(PipelineError):
    """A topic was deleted and recreated while it was read."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"{topic} was deleted and recreated while it was read. The worker ends; once "
            "restarted, it reads the new topic from its beginning"
        )


class OtherRules(PipelineError):
    """A run was decided by rules that no longer hold at its offsets."""

    def __init__(self, source: str) -> None:
        super().__init__(
            f"other rules of {source} were recorded since this began: nothing was stored. Once "
            "restarted, a worker or a replay decides by the rules that hold. If that does not "
            "help, Redis knows rules that Postgres has not recorded, because a `tickwell migrate "
            "--from-now` was ended half-way or Postgres was restored from a backup: run `tickwell "
            "migrate --from-now`, and Redis knows what is recorded, whether the file has changed "
            "or not"
        )


class WorkersAlive(PipelineError):
    """The rules of sources cannot change under their workers."""

    def __init__(self, sources: Sequence[str], workers: Sequence[str]) -> None:
        super().__init__(
            f"the rules of {', '.join(sources)} cannot change while workers read them (alive are "
            f"{', '.join(workers)}): stop them, and run this again; nothing was changed"
        )


class TopicElsewhere(PipelineError):
    """The broker has a topic that was followed by another one of its name."""

    def __init__(self, source: str, topic: str, servers: str) -> None:
        super().__init__(
            f"source {source}: Kafka at {servers} has an earlier topic {topic} than the one that "
            "workers have read last: name the broker that has the later one (TICKWELL_KAFKA); "
            "nothing was changed"
        )


class ReadTopicMissing(PipelineError):
    """The rules of a topic that was read cannot change, and the broker does not have it."""

    def __init__(self, source: str, topic: str, servers: str, why: PipelineError) -> None:
        super().__init__(
            f"source {source}: Kafka at {servers} does not have the topic {topic} that was read "
            f"last: name the broker that has it (TICKWELL_KAFKA). Its rules cannot change: {why}. "
            "If it was deleted, let workers read the new one first, with the features file and the "
            "build as they were; where its producers use another partitioner already, say "
            'partitioner = "any" for that (tickwell migrate --from-now)'
        )


class PartitionsUnknown(PipelineError):
    """Keys may move in a topic that only a replay has read."""

    def __init__(self) -> None:
        super().__init__(
            "only a replay has read it, so that nobody knows how many partitions it has, and keys "
            "may move to others; nothing was changed"
        )


class RulesLost(PipelineError):
    """Redis has stored by rules that Postgres does not have."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        super().__init__(
            f"Redis has stored {topic}[{partition}] from offset {offset} on by rules that are not "
            "in Postgres, which was restored from a backup or is a new one. Postgres would decide "
            "these offsets by other rules: empty Redis (FLUSHALL), which workers fill from "
            "Postgres when they start, and run this again; nothing was changed"
        )


class StoresApart(PipelineError):
    """A store lacks what the other one has, and the rules cannot change before it has it."""

    def __init__(self, topic: str, partition: int, online: int, offline: int, why: str) -> None:
        super().__init__(
            f"{topic}[{partition}] is stored up to offset {online} in Redis and {offline} in "
            f"Postgres, and {why}: with the features file and the build as they were, let the "
            "workers store the rest, stop them, and run this again; nothing was changed"
        )


class HomesElsewhere(PipelineError):
    """With another partitioner entities would have to move to other partitions."""

    def __init__(self, source: str, partitioner: str, moved: int, keys: int, example: str) -> None:
        super().__init__(
            f"source {source}: by {partitioner} {moved} of {keys} keys belong in other partitions "
            f"than the one that holds their ticks ({example}), and every tick of theirs would be "
            "wrong-partition: declare the partitioner that the producers have used, or a source "
            "with a new name and a topic of its own; nothing was changed"
        )


class HomesUnknown(PipelineError):
    """Nobody knows whether entities would move with another partitioner."""

    def __init__(self, source: str, partitioner: str) -> None:
        super().__init__(
            f"source {source}: entities are at home in a partition for the life of the topic, and "
            f'with message_key = "any" it is not known where {partitioner} puts their messages: '
            'say partitioner = "any", or declare a source with a new name and a topic of its own; '
            "nothing was changed"
        )


class ConsumerEnded(PipelineError):
    """The consumer ended without a request to stop and without an error of its own."""

    def __init__(self) -> None:
        super().__init__(
            "the Kafka consumer ended without an error. The worker ends; once restarted, it "
            "resumes at the store's watermark"
        )


class OffsetsWentBack(PipelineError):
    """A partition delivered offsets that were delivered before."""

    def __init__(self, topic: str, partition: int, expected: int, got: int) -> None:
        super().__init__(
            f"{topic}[{partition}] delivered offset {got} where {expected} was expected: the topic "
            "was recreated or truncated. The worker ends; once restarted, it resumes at the "
            "store's watermark"
        )


class StateConflict(PipelineError):
    """The store keeps refusing a run whose state was just reloaded from it."""

    def __init__(self, entities: int, topic: str, partition: int) -> None:
        super().__init__(
            f"the states of {entities} entities of {topic}[{partition}] kept changing in the store "
            "while one run was computed: stop any worker of the same store that runs under another "
            "TICKWELL_GROUP"
        )


class WatermarkContended(PipelineError):
    """Another worker keeps writing to the same partition."""

    def __init__(self, topic: str, partition: int, moves: int) -> None:
        super().__init__(
            f"the watermark of {topic}[{partition}] moved {moves} times while one run was stored: "
            "stop any worker of the same store that runs under another TICKWELL_GROUP"
        )


class SchemaBehind(PipelineError):
    """The store takes rows in a newer row schema than this worker writes."""

    def __init__(self, source: str, schema: int) -> None:
        super().__init__(
            f"rows of {source} are written in a newer row schema than {schema}: features were "
            "recorded since this worker read the registry"
        )


class NewerSchemaUnknown(StoreUnavailable):
    """The store has rows in a row schema that the registry does not have."""

    def __init__(self, behind: str) -> None:
        super().__init__(
            f"{behind}, and the registry does not know it. It is asked again; if it was restored "
            "from an older copy, run `tickwell migrate`"
        )


class StatesLost(PipelineError):
    """The store has lost window states that it had confirmed."""

    def __init__(self, topic: str, partition: int, entity: str) -> None:
        super().__init__(
            f"Redis has an older state of {entity!r} than it had confirmed: it lost its last "
            f"writes. The worker ends; once restarted, it restores {topic}[{partition}] from "
            "Postgres"
        )


class HistoryTooShort(PipelineError):
    """Fewer ticks are kept than the longest window needs."""

    def __init__(self, source: str, history: int, depth: int) -> None:
        super().__init__(
            f"the {history} ticks that are kept of an entity of {source} are fewer than the "
            f"{depth} that its longest window needs: declare `history = {depth}` or more of that "
            "source, and run `tickwell features apply`"
        )


class StateOfOtherFields(PipelineError):
    """A window state was written when its source had other fields."""

    def __init__(self, source: str, found: str) -> None:
        super().__init__(
            f"{found}: {source} had other fields when that was written. Define the changed source "
            "under another name"
        )


class StateDamaged(PipelineError):
    """A window state is not what its header says."""

    def __init__(self, entity: str, what: str) -> None:
        super().__init__(
            f"the state of {entity!r} in Redis {what}: something else than Tickwell has written or "
            "deleted it. Empty Redis (FLUSHALL), and the workers fill it from Postgres when they "
            "start"
        )


class Stopped(PipelineError):
    """The worker was stopped before the run was stored."""


class ParityViolation(PipelineError):
    """A stored row differs from the row that was recomputed for the same tick."""

    def __init__(self, entity: str, event_time: int, sequence: int) -> None:
        super().__init__(
            f"the stored row of {entity!r} at {event_time} ns, sequence {sequence}, has other bits "
            "than the row computed now; nothing was overwritten. Check that its history was not "
            "changed by hand, and that this topic is the one that the stored rows came from"
        )


class TimesUnknown(PipelineError):
    """The broker does not know where a time is in the log."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(
            f"{topic}[{partition}]: this broker cannot look up offsets by time. Give the range by "
            "--from-offset and --to-offset"
        )


class RangeMistaken(PipelineError):
    """The range to be replayed does not exist, or ends before it begins."""


class LogBegins(PipelineError):
    """The beginning of the log was deleted, and the database lacks its rows as well."""

    def __init__(self, topic: str, partition: int, start: int, earliest: int) -> None:
        super().__init__(
            f"{topic}[{partition}] begins at offset {earliest}: the ticks before it are deleted, "
            f"and this database lacks some of their rows, so the windows at {start} are unknown. "
            "Replay into the database that live wrote to, once live has passed this offset; or, if "
            f"no database has their rows, begin at {earliest} with empty windows by --cold"
        )


class StatesLetGo(PipelineError):
    """The states with which a replay would begin are of rows that Postgres let go of."""

    def __init__(self, topic: str, partition: int, start: int, let_go_to: int) -> None:
        super().__init__(
            f"{topic}[{partition}]: the windows at offset {start} are of ticks that the lake alone "
            "has, and the log does not reach back to its beginning: replay from offset "
            f"{let_go_to} on, or read the earlier rows in the lake (`tickwell lake status`)"
        )


class LetGoMeanwhile(PipelineError):
    """Postgres let go of rows that a replay would have taken states from."""

    def __init__(self) -> None:
        super().__init__(
            "Postgres let go of months while this replay ran, and of rows that it needs: run the "
            "same command again"
        )


class LogCut(PipelineError):
    """The broker deleted records before they were read."""

    def __init__(self, topic: str, partition: int, expected: int, got: int) -> None:
        super().__init__(
            f"{topic}[{partition}]: offsets {expected} to {got - 1} were deleted from the log "
            "before they were read, so the ticks after them cannot be computed; what is stored is "
            "right. Set a longer retention for the topic, and run the same command again: it "
            "resumes where live's rows allow it"
        )


class JobEnded(PipelineError):
    """A job of a parallel replay ended before it was done."""


class BackfillElsewhere(PipelineError):
    """Another process computes the same backfill."""

    def __init__(self, ref: str) -> None:
        super().__init__(
            f"another process is backfilling {ref}: wait for it, or stop it; what it has done stays"
        )


class BackfillUnread(PipelineError):
    """Kafka does not have the log that a backfill was to be computed of."""

    def __init__(self, ref: str, topic: str, why: str) -> None:
        super().__init__(
            f"the backfill of {ref} cannot read {topic} in Kafka: {why}. Postgres has the fields "
            f"of the same ticks: `tickwell backfill {ref} --from postgres`"
        )


class BackfillEnded(PipelineError):
    """A backfill was cancelled while it was computed."""

    def __init__(self, ref: str) -> None:
        super().__init__(
            f"the backfill of {ref} was cancelled: `tickwell features history {ref}` says by whom"
        )
