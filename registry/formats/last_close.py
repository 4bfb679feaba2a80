"""The last close of a group, as Redis keeps it: of a portfolio the position that was closed last.

An entity that is closed is no member of its group any more. This is what remains to be known of all
that were ever closed: a group without members of which something was closed is empty since then,
and one of which nothing was is not known at all.
"""

from __future__ import annotations

from registry.formats.layout import Field, Layout

LAST_CLOSE = Layout(Field("event_time", "i8"))
"""What precedes the member, in UTF-8: the event time of the row in which it is closed, nanoseconds
UTC. It never falls. A later row of the same entity says whether it is closed still."""


def closed_member(packed: bytes) -> str:
    """The member that was closed last; of bytes that are no close one that nobody has."""
    return packed[LAST_CLOSE.size :].decode("utf-8", "replace")
