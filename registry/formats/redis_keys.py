"""The keys of Redis.

Rows, states and chunks are fields of hashes. A single server has one hash of each kind for a
source, so that any entities are one HMGET. On a cluster there are 256, each with a hash tag of its
own: all that belongs to one Kafka message key (`AAPL`; `P1` with all its positions) has the same
tag, so that scripts and reads over it stay on one slot.

What follows `tw:3:` is of this layout, the third. A Redis that an earlier build has filled is one
that lacks it, and is filled from Postgres.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from registry.formats.entity_name import SEPARATOR, entity_id, key_values

CLUSTER_BUCKETS = 256


def bucket(entity: str, cluster: bool) -> int:
    """The number of the hashes that an entity is in: on a cluster 0 to 255, else 0.

    The first key field (the Kafka message key) decides.
    """
    return _tag(entity.split(SEPARATOR, 1)[0]) if cluster else 0


def rows_key(source: str, bucket: int) -> str:
    """The key of the hash of newest rows (`registry.formats.row`), by entity."""
    return f"tw:3:{{b{bucket}}}:rows:{source}"


def states_key(source: str, bucket: int) -> str:
    """The key of the hash of window states (`registry.formats.state`), by entity."""
    return f"tw:3:{{b{bucket}}}:states:{source}"


def chunks_key(source: str, bucket: int) -> str:
    """The key of the hash of chunks of ticks (`registry.formats.state`), by `chunk_field`."""
    return f"tw:3:{{b{bucket}}}:chunks:{source}"


def chunk_field(entity: str, block: int) -> str:
    """The name of an entity's chunk that ends with a block of ticks."""
    return f"{entity}{SEPARATOR}#{block}"


def members_key(source: str, message_key: str) -> str:
    """The key of the set of a source's open entities under one message key: of a portfolio."""
    return f"tw:3:{{b{_tag(message_key)}}}:members:{source}:{message_key}"


def closed_key(source: str, group: str) -> str:
    """The key of the last close in a group (`registry.formats.last_close`)."""
    return f"tw:3:{{b{bucket(group, cluster=True)}}}:closed:{source}:{group}"


def groups_of(entity: str) -> list[str]:
    """The groups that an entity belongs to, by name: its key field values but the last ones."""
    values = key_values(entity)
    return [entity_id(values[:fields]) for fields in range(1, len(values))]


def watermark_key(topic_id: bytes, partition: int) -> str:
    """The key of the next offset to read of a topic incarnation's partition."""
    return f"tw:3:watermark:{topic_id.hex()}:{partition}"


def filled_key(topic_id: bytes, partition: int) -> str:
    """The key of the mark that Redis has all entities as of a partition's watermark.

    It shares a hash slot with the watermark.
    """
    return f"tw:3:filled:{{{watermark_key(topic_id, partition)}}}"


def begun_key(topic_id: bytes, partition: int) -> str:
    """The key of the offset before which runs of a partition were begun to be stored in steps.

    Entities may be ahead of the watermark by as much. It shares a hash slot with the watermark.
    """
    return f"tw:3:begun:{{{watermark_key(topic_id, partition)}}}"


def writer_key(topic_id: bytes, partition: int) -> str:
    """The key of the one sink that may write a partition, and how much it has written.

    `<token>:<number>`: a token that the sink made up, and the number of its next script. Only a
    single server has it. There is none after a rebuild has written entities of the partition.
    """
    return f"tw:3:writer:{{{watermark_key(topic_id, partition)}}}"


def restoring_key(topic_id: bytes, partition: int) -> str:
    """The key that is there while a rebuild writes entities of a partition, and a moment longer.

    Until it is gone no row of the partition that hot holds is believed.
    """
    return f"tw:restoring:{topic_id.hex()}:{partition}"


def carried_key(topic_id: bytes, partition: int) -> str:
    """The key of the note of how far rows of a partition are carried over into a row schema.

    The id of a row schema in which, or in a newer one, the newest row of every entity is; while
    that is made so there is a token. There is none after entities were restored from Postgres.
    """
    return f"tw:3:carried:{{{watermark_key(topic_id, partition)}}}"


def schema_key(source: str) -> str:
    """The key of the greatest id of a row schema in which rows of a source were stored.

    Only a single server has it.
    """
    return f"tw:3:schema:{source}"


def rules_key(topic_id: bytes, partition: int) -> str:
    """The key of the ids of a partition's changed rules, each with the first offset it decides.

    `7:120,9:300`, as they are recorded in Postgres, the oldest first; there is none where the rules
    of the source never changed while the partition was read. It shares a hash slot with the
    watermark.
    """
    return f"tw:3:rules:{{{watermark_key(topic_id, partition)}}}"


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

API_KEYS_KEY = "tw:api-keys"
"""The key of a JSON copy of the API keys (`registry.api_keys`): servers start from it without
Postgres."""

REVOKED_KEY = "tw:api-keys:revoked"
"""The key of the set of SHA-256 of API keys that were revoked, which no copy makes valid again."""

WORKERS_KEY = "tw:workers"
"""The key of the set of `sink:instance` of workers that have sent a heartbeat."""


def _tag(message_key: str) -> int:
    return crc32(message_key.encode()) % CLUSTER_BUCKETS
