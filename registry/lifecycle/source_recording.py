"""Recording a source: the first time, and with other rules from some offsets on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import msgspec
from sqlalchemy import Connection, update
from sqlalchemy.dialects.postgresql import insert

from registry.database.tables import rules_starts, source_rules, sources
from registry.definitions import Catalog, RulesStart, Source
from registry.lifecycle.audit import audit
from registry.source_rules import SourceRules


class Begin(Protocol):
    """Says where other rules of a source begin to hold, which are recorded as `rules_id`."""

    def __call__(
        self, connection: Connection, rules: SourceRules, declared: Source, rules_id: int
    ) -> Sequence[RulesStart]:
        """The first offset of each partition, as the transaction of `connection` sees the rows.

        From then on nothing that is not stored yet may be stored by the old rules. Raises, with
        nothing recorded, where that cannot be.
        """
        ...


def declare_source(connection: Connection, source: Source, known: Catalog, actor: str) -> None:
    """Record a source that is new."""
    if source.name in known.sources:
        return
    definition = msgspec.to_builtins(source)
    connection.execute(insert(sources).values(name=source.name, definition=definition))
    _record_rules(connection, source, actor)
    audit(connection, actor, "declare source", source.name, definition)


def change_rules(
    connection: Connection, source: Source, known: Catalog, actor: str, begin: Begin
) -> None:
    """Record other rules of a known source, if they are others. Raises what `begin` raises."""
    if source.name not in known.sources:
        return
    rules = SourceRules.of(known, source.name)
    if rules.source == source and not rules.newest.of_earlier_build:
        return
    rules_id = _record_rules(connection, source, actor)
    definition = msgspec.to_builtins(source)
    # first, so that a replay that is storing a run is waited for, and its progress seen
    connection.execute(
        update(sources).where(sources.c.name == source.name).values(definition=definition)
    )
    for start in begin(connection, rules, source, rules_id):
        connection.execute(
            insert(rules_starts).values(
                rules_id=rules_id,
                topic_id=UUID(bytes=start.topic_id),
                partition=start.partition,
                from_offset=start.offset,
            )
        )
    audit(connection, actor, "change rules", source.name, definition)


def _record_rules(connection: Connection, source: Source, actor: str) -> int:
    values = {
        "source": source.name,
        "definition": msgspec.to_builtins(source),
        "recorded_by": actor,
    }
    inserted = insert(source_rules).values(**values).returning(source_rules.c.id)
    rules_id: int = connection.execute(inserted).scalar_one()
    return rules_id
