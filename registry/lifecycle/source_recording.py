"""Recording a source: the first time, with another history, and with other rules.

Other rules hold from some offsets on. The history of a source holds for all of them, so it stands
in one place, with the source, and in none of its rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec
from msgspec import structs
from sqlalchemy import Connection, text, update
from sqlalchemy.dialects.postgresql import insert

from registry.database.tables import rules_starts, source_rules, sources
from registry.definitions import Catalog, RulesStart, Source
from registry.errors import HistoryLetGo
from registry.formats.lake import DAY_NS, day_of
from registry.lifecycle.audit import By, audit
from registry.source_rules import NO_RULES, SourceRules

ROWS_SINCE = text("SELECT tickwell.rows_since(:source)")


class ChangedRules(NamedTuple):
    """A source that is now `declared` otherwise than by its `rules`; recorded as `rules_id`."""

    rules: SourceRules
    declared: Source
    rules_id: int


class Begin(Protocol):
    """Says where other rules of sources begin to hold."""

    def __call__(
        self, connection: Connection, changed: Sequence[ChangedRules], sources: Sequence[Source]
    ) -> Sequence[Sequence[RulesStart]]:
        """The first offset of each partition, for each of `changed`.

        It is called once, also where nothing is changed, and sees the rows as the transaction of
        `connection` does. `sources` are all that are recorded. From then on nothing that is not
        stored yet may be stored by the old rules. Raises, with nothing recorded, where that cannot
        be.
        """
        ...


def declare_source(connection: Connection, source: Source, known: Catalog, by: By) -> None:
    """Record a source that is new."""
    if source.name in known.sources:
        return
    definition = msgspec.to_builtins(source)
    connection.execute(insert(sources).values(name=source.name, definition=definition))
    _record_rules(connection, source, by)
    audit(connection, by, "declare source", source.name, definition)


def reword_source(connection: Connection, source: Source, known: Catalog, by: By) -> None:
    """Record a known source as `source`, which has the same rules. Nothing is decided anew.

    Raises `HistoryLetGo`.
    """
    _check_history(connection, source, known)
    _update(connection, source)
    before, after = map(msgspec.to_builtins, (known.sources[source.name], source))
    audit(connection, by, "reword source", source.name, after, before)


def change_rules(
    connection: Connection, declared: Sequence[Source], known: Catalog, by: By, begin: Begin
) -> None:
    """Record other rules of known sources, where they are others.

    Raises `HistoryLetGo`, and what `begin` raises.
    """
    changed = []
    for source in declared:
        if source.name not in known.sources:
            continue
        _check_history(connection, source, known)
        rules = SourceRules.of(known, source.name)
        recorded_now = structs.replace(rules.source, history=source.history)
        if recorded_now == source and not rules.newest.of_earlier_build:
            continue
        changed.append(ChangedRules(rules, source, _record_rules(connection, source, by)))
        # before `begin`, so that a replay that is storing a run is waited for, its progress seen
        _update(connection, source)
    recorded = known.sources | {source.name: source for source in declared}
    for one, starts in zip(
        changed, begin(connection, changed, list(recorded.values())), strict=True
    ):
        for start in starts:
            connection.execute(
                insert(rules_starts).values(
                    rules_id=one.rules_id,
                    topic_id=UUID(bytes=start.topic_id),
                    partition=start.partition,
                    from_offset=start.offset,
                )
            )
        # its history, if it is another one, is recorded by itself
        recorded_then = structs.replace(one.rules.source, history=one.declared.history)
        before, after = map(msgspec.to_builtins, (recorded_then, one.declared))
        audit(connection, by, "change rules", one.declared.name, after, before)


def _check_history(connection: Connection, source: Source, known: Catalog) -> None:
    """Raises `HistoryLetGo` for a history that could not be restored from the rows there are."""
    history = known.sources[source.name].history
    if source.history <= history:
        return
    since = connection.execute(ROWS_SINCE, {"source": source.name}).scalar_one()
    if since is not None:
        day = day_of(int(since) // DAY_NS).isoformat()
        raise HistoryLetGo(source.name, history, source.history, day)


def _update(connection: Connection, source: Source) -> None:
    definition = msgspec.to_builtins(source)
    connection.execute(
        update(sources).where(sources.c.name == source.name).values(definition=definition)
    )


def _record_rules(connection: Connection, source: Source, by: By) -> int:
    definition = msgspec.to_builtins(source)
    for name in NO_RULES:
        del definition[name]
    values = {
        "source": source.name,
        "definition": definition,
        "recorded_by": by.actor,
    }
    inserted = insert(source_rules).values(**values).returning(source_rules.c.id)
    rules_id: int = connection.execute(inserted).scalar_one()
    return rules_id
