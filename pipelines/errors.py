"""What can go wrong between a topic and a store."""

from __future__ import annotations


class PipelineError(Exception):
    """Any error of the pipeline."""


class StoreUnavailable(PipelineError):
    """The store did not answer, or refused for a reason that passes. Wait, and try again."""


class PartitionHeld(StoreUnavailable):
    """Another session holds what this one needs, for longer than it should."""


class RowsThere(PipelineError):
    """Rows of a run are stored already."""


class WatermarkMoved(PipelineError):
    """The partition's stored watermark is not where the run begins; None when it is gone."""

    def __init__(self, watermark: int | None) -> None:
        super().__init__(f"the stored watermark is {watermark}")
        self.watermark = watermark


class StoreWentBack(PipelineError):
    """The store has lost what it had confirmed."""

    def __init__(self, topic: str, partition: int, watermark: int | None, base: int) -> None:
        found = (
            "is gone, or its mark that it was filled" if watermark is None else f"is {watermark}"
        )
        super().__init__(
            f"the store's watermark of {topic}[{partition}] {found}, and {base} was "
            "confirmed before: it lost its last writes; the worker starts again from there"
        )


class BrokerUnavailable(PipelineError):
    """The Kafka broker did not answer, or refused."""

    def __init__(self, bootstrap: str, why: str) -> None:
        super().__init__(
            f"Kafka at {bootstrap}: {why}; is it running, and is TICKWELL_KAFKA right?"
        )


class SessionRefused(PipelineError):
    """The broker takes no session of this length."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the broker refuses a session of {seconds:g} s: set TICKWELL_SESSION between its "
            "group.min.session.timeout.ms and group.max.session.timeout.ms"
        )


class TopicMissing(PipelineError):
    """A topic that a source reads is not there."""

    def __init__(self, topic: str, bootstrap: str) -> None:
        super().__init__(f"Kafka at {bootstrap} has no topic {topic}: run `tickwell migrate`")


class PartitionsChanged(PipelineError):
    """Keys have moved to other partitions, so that the order of every entity is broken."""

    def __init__(self, topic: str, was: int, now: int) -> None:
        super().__init__(
            f"{topic} had {was} partitions and has {now}: entities moved to other partitions, and "
            "their ticks would be rejected as wrong-partition. Make a topic of the new size, copy "
            "the ticks there, and name it in features.toml"
        )


class TopicRecreated(PipelineError):
    """A topic was deleted and made anew while it was read."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"{topic} was made anew: the worker starts again, from its beginning")


class ConsumerEnded(PipelineError):
    """The consumer ended by itself, without an error of its own."""

    def __init__(self) -> None:
        super().__init__("the Kafka consumer ended by itself; the worker starts again")


class OffsetsWentBack(PipelineError):
    """A partition delivered offsets that were delivered before."""

    def __init__(self, topic: str, partition: int, expected: int, got: int) -> None:
        super().__init__(
            f"{topic}[{partition}] continues at offset {got} where {expected} is next: the topic "
            "was made anew or truncated; the worker starts again"
        )


class StateConflict(PipelineError):
    """The store keeps refusing a run whose state was just reloaded from it."""

    def __init__(self, entities: int, topic: str, partition: int) -> None:
        super().__init__(
            f"{entities} entities of {topic}[{partition}] changed in the store again and again "
            "while they were computed: does another worker run under another group name?"
        )


class WatermarkContended(PipelineError):
    """Another worker keeps writing to the same partition."""

    def __init__(self, topic: str, partition: int, moves: int) -> None:
        super().__init__(
            f"the watermark of {topic}[{partition}] moved {moves} times while one run was stored: "
            "does another worker run under another group name?"
        )


class SchemaBehind(PipelineError):
    """The store has rows in a newer row schema than this worker writes."""

    def __init__(self, source: str, schema: int) -> None:
        super().__init__(
            f"Redis has rows of {source} in a newer row schema than {schema}: features were "
            "recorded since this worker began, and it starts again with them (if the registry was "
            "restored from an older copy, record them again with `tickwell migrate`)"
        )


class StatesLost(PipelineError):
    """The store has lost window states that it had confirmed."""

    def __init__(self, topic: str, partition: int, entity: str) -> None:
        super().__init__(
            f"Redis has an older state of {entity!r} than it had confirmed: it lost its last "
            f"writes; the worker starts again, and restores {topic}[{partition}] from Postgres"
        )


class HistoryTooShort(PipelineError):
    """Fewer ticks are kept than the longest window needs."""

    def __init__(self, history: int, depth: int) -> None:
        super().__init__(
            f"a history of {history} ticks does not hold the longest window; set TICKWELL_HISTORY "
            f"to at least {depth}"
        )


class StateOfOtherFields(PipelineError):
    """A window state was written when its source had other fields."""

    def __init__(self, source: str, entity: str, was: int, now: int) -> None:
        super().__init__(
            f"the state of {entity!r} in Redis has {was} bytes a tick, and {source} needs {now}: "
            "the source had other fields when it was written; give the changed one another name"
        )


class Stopped(PipelineError):
    """The worker was asked to stop before the run was stored."""


class ParityViolation(PipelineError):
    """A row that is stored differs from the row computed anew for the same tick."""

    def __init__(self, entity: str, event_time: int, sequence: int) -> None:
        super().__init__(
            f"the stored row of {entity!r} at {event_time} ns, sequence {sequence}, has other bits "
            "than the row computed now; nothing was overwritten. Was its history changed by hand, "
            "or is this a replay of a topic that is not the one these rows came from?"
        )


class TimesUnknown(PipelineError):
    """The broker does not know where a time is in the log."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(
            f"{topic}[{partition}]: this broker does not find offsets by time; name the range by "
            "--from-offset and --to-offset"
        )


class RangeMistaken(PipelineError):
    """What is to be replayed is not there, or ends before it begins."""


class LogBegins(PipelineError):
    """The log's beginning is gone, and the database does not have its rows either."""

    def __init__(self, topic: str, partition: int, start: int, earliest: int) -> None:
        super().__init__(
            f"{topic}[{partition}] begins at offset {earliest}: the ticks before it are deleted, "
            f"and this database does not have all their rows, so that the windows at {start} are "
            "not known. Replay into the database that live wrote to, once live has passed the "
            f"place; or, where no database has rows of them, begin at {earliest} with empty "
            "windows by --cold"
        )


class LogCut(PipelineError):
    """The broker deleted records while they were read, or before the turn came to them."""

    def __init__(self, topic: str, partition: int, expected: int, got: int) -> None:
        super().__init__(
            f"{topic}[{partition}]: offsets {expected} to {got - 1} were deleted from the log "
            "before they were read, so that what follows cannot be computed; what was stored "
            "before is right. Give the topic a longer retention, and run the same command again: "
            "it goes on where live's rows allow it"
        )


class JobEnded(PipelineError):
    """A job of a parallel replay did not come to its end."""
