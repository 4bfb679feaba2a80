"""The keys of Redis, and the names of entities.

An entity is named by its key fields joined with the ASCII unit separator, a character that no
key may hold. All keys of one Kafka message key (`AAPL`; `P1` with all its positions) share one of
256 hash tags, so that scripts and MGETs over them stay on one slot of a Redis Cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

BUCKETS = 256
SEPARATOR = "\x1f"


def entity_id(key_values: Sequence[str]) -> str:
    """The entity's name: its key field values in the source's order, `("P1", "AAPL")`."""
    return SEPARATOR.join(key_values)


def key_values(entity: str) -> tuple[str, ...]:
    """The key field values of an entity, the inverse of `entity_id`."""
    return tuple(entity.split(SEPARATOR))


def bucket(entity: str) -> int:
    """The hash tag's number, 0 to 255, by the first key field (the Kafka message key)."""
    return crc32(entity.split(SEPARATOR, 1)[0].encode()) % BUCKETS


def row_key(source: str, entity: str) -> str:
    """The key of an entity's newest row (`registry.formats.row`)."""
    return f"tw:{{b{bucket(entity)}}}:row:{source}:{entity}"


def state_key(source: str, entity: str) -> str:
    """The key of an entity's window state (`registry.formats.state`)."""
    return f"tw:{{b{bucket(entity)}}}:state:{source}:{entity}"


def members_key(source: str, message_key: str) -> str:
    """The key of the set of a source's open entities under one message key: of a portfolio."""
    return f"tw:{{b{bucket(message_key)}}}:members:{source}:{message_key}"


def closed_key(source: str, group: str) -> str:
    """The key of the last close in a group (`registry.formats.last_close`)."""
    return f"tw:{{b{bucket(group)}}}:closed:{source}:{group}"


def groups_of(entity: str) -> list[str]:
    """The groups that an entity belongs to, by name: its key field values but the last ones."""
    values = key_values(entity)
    return [entity_id(values[:fields]) for fields in range(1, len(values))]


def watermark_key(topic_id: bytes, partition: int) -> str:
    """The key of the next offset to read of a topic incarnation's partition."""
    return f"tw:watermark:{topic_id.hex()}:{partition}"


def filled_key(topic_id: bytes, partition: int) -> str:
    """The key of the mark that Redis has all entities as of a partition's watermark.

    It shares a hash slot with the watermark.
    """
    return f"tw:filled:{{{watermark_key(topic_id, partition)}}}"


def begun_key(topic_id: bytes, partition: int) -> str:
    """The key of the offset before which runs of a partition were begun to be stored in steps.

    Entities may be ahead of the watermark by as much. It shares a hash slot with the watermark.
    """
    return f"tw:begun:{{{watermark_key(topic_id, partition)}}}"


def rules_key(topic_id: bytes, partition: int) -> str:
    """The key of the ids of a partition's changed rules, each with the first offset it decides.

    `7:120,9:300`, as they are recorded in Postgres, the oldest first; there is none where the rules
    of the source never changed while the partition was read. It shares a hash slot with the
    watermark.
    """
    return f"tw:rules:{{{watermark_key(topic_id, partition)}}}"


def rules_value(pairs: Iterable[tuple[int, int]]) -> str:
    """The value under `rules_key`: ids of rules, and the first offset that each decides."""
    return ",".join(f"{rules_id}:{offset}" for rules_id, offset in pairs)


def rules_pairs(value: bytes | None) -> list[tuple[int, int]]:
    """What `rules_value` was made of; `value` is None where nothing is stored."""
    pairs = (pair.split(":") for pair in (value or b"").decode().split(",") if pair)
    return [(int(rules_id), int(offset)) for rules_id, offset in pairs]


FILLED_MARK = b"filled"
"""The value under `filled_key` of a filled partition; while it is being filled there is a token."""


def partitions_key(topic_id: bytes) -> str:
    """The key of the number of partitions that a topic incarnation had when it was first read."""
    return f"tw:partitions:{topic_id.hex()}"


def incarnations_key(topic: str) -> str:
    """The key of the list of topic ids that a name has had, the current one last."""
    return f"tw:incarnations:{topic}"


def worker_key(sink: str, instance: str) -> str:
    """The key of the heartbeat (`registry.formats.heartbeat`) of one worker process."""
    return f"tw:worker:{sink}:{instance}"


CATALOG_KEY = "tw:catalog"
"""The key of a JSON copy of the catalog: workers and servers start from it without Postgres."""

WORKERS_KEY = "tw:workers"
"""The key of the set of `sink:instance` of workers that have sent a heartbeat."""
