"""How rows that were loaded from files are told from those of live, in the table of both.

A loaded row is in the row schema that live had when the load began, under the negative of its id;
values that are backfilled for it are under the negative of the backfill's id. So no key of the one
kind is a key of the other, whatever Kafka brings later, and who looks for the state of live finds
no loaded row, however many there are.
"""

from __future__ import annotations


def loaded(identifier: int) -> int:
    """The id that stands in loaded rows for a row schema, or for a backfill."""
    return -identifier


def load_topic(source: str) -> str:
    """What stands for the topic of loaded ticks: no topic's name has a colon."""
    return f"load:{source}"


def row_schema_of(schema_id: int) -> int:
    """The row schema of a row, loaded or not."""
    return abs(schema_id)
