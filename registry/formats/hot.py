"""The hot tier: a bounded copy of rows that are asked for, in a Redis of its own, a key a row.

Warm, the Redis that has every row, is authoritative. A row in hot is believed while the *mark* of
the partition that it comes from is there and holds the token that stands before the row. The worker
of the partition makes a mark and keeps it alive only while hot has all that warm has confirmed, so
what is believed is at most `MARK_MS` older than what warm had, and by as much more as the mark was
read before the row. A token is made up once and never comes back: what is void stays void.

Servers bring rows in under *leases*: a lease is taken before warm is read, the worker deletes it
once warm has confirmed another row of the entity, and the row is put in only if the lease is left.
The token under which it is put in is that of a mark which was read before warm was: what warm
confirmed after that is fed, or the mark ends.
"""

from __future__ import annotations

from registry.formats.layout import Field, Layout
from registry.formats.row import HEADER

HOT_HEADER = Layout(Field("token", "V8"), *HEADER.fields)
"""How a row begins in hot: the token, then the row as warm has it (`registry.formats.row`)."""

TOKEN_BYTES = HOT_HEADER.offset("layout_version")
"""Bytes of a token, which are random; what follows them is the row."""

HOME = slice(HOT_HEADER.offset("topic_id"), HOT_HEADER.offset("offset"))
"""The bytes of a row in hot that say whose mark it needs: topic id and partition."""

HOME_LAYOUT = Layout(*(field for field in HEADER.fields if field.name in ("topic_id", "partition")))
"""What `HOME` cuts out."""

MARK_MS = 1_000
"""Milliseconds that a mark lives from the moment as of which hot had all that warm has."""

RENEW_SECONDS = 0.25
"""Seconds between two renewals of a mark."""

LEASE_MS = 2_000
"""Milliseconds that a lease lives: longer than warm is waited for."""


def mark_key(topic_id: bytes, partition: int) -> str:
    """The key of the live token of a topic incarnation's partition."""
    return f"th:mark:{topic_id.hex()}:{partition}"


def row_key(source: str, entity: str) -> str:
    """The key of an entity's token and newest row."""
    return f"th:row:{source}:{entity}"


def lease_key(source: str, entity: str) -> str:
    """The key of the nonce of the reader that may put the entity's row in."""
    return f"th:lease:{source}:{entity}"
