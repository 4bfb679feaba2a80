"""How many ticks of an entity of a source are kept: what needs them, and what they cost in Redis.

    history of the source    64 ─────── 1,024 ─────────── 4,096
    ticks that are needed        21 by price_volatility_20@1.0.0

A history never changes a value, so it may change at any time, but not to less than what a version
needs that is computed. Redis keeps the ticks of an entity in blocks (`registry.formats.state`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct, structs

from registry.definitions import Catalog, Definitions, FeatureVersion, Source
from registry.errors import DefinitionError
from registry.formats.state import BLOCK, tick_layout
from registry.language.program import lookback

CHUNK_BYTES = 120
"""Bytes that Redis takes for the smallest chunk beside its ticks, as measured with Valkey."""


class PlannedHistory(Struct, frozen=True):
    """The ticks of an entity that are kept before and after, of a new source none before.

    Each takes about `tick_bytes` in Redis, of at most so many entities as there are now.
    """

    source: str
    ticks: tuple[int, int]
    tick_bytes: int
    entities: int


class Need(NamedTuple):
    """The most ticks of an entity that a version needs, and which one."""

    ticks: int
    ref: str


def reworded(known: Catalog, definitions: Definitions) -> tuple[Source, ...]:
    """The known sources that are declared with another history, as they will be recorded.

    What else is declared otherwise of them is a rule, which changes in a way of its own.
    """
    return tuple(
        structs.replace(known.sources[source.name], history=source.history)
        for source in definitions.sources
        if source.name in known.sources and known.sources[source.name].history != source.history
    )


def check_source(known: Catalog, source: Source, file: str) -> None:
    """Refuse a history that is too short for what is computed. Raises `DefinitionError`."""
    need = max(_needs(known, source), default=None)
    if need is not None and need.ticks > source.history:
        raise DefinitionError(
            f"{file}: source {source.name}",
            f"would keep {source.history} ticks of an entity, and {need.ref} needs {need.ticks}: "
            f"declare `history = {need.ticks}` or more, or retire that version first",
        )


def check_version(feature: FeatureVersion, sources: Mapping[str, Source], file: str) -> None:
    """Refuse a version of more ticks than its source keeps. Raises `DefinitionError`.

    No worker could compute it, and a recorded version is never taken back.
    """
    if feature.source is None:
        return
    source = sources[feature.source]
    needed = lookback(feature.expression, source, feature.ref)
    if needed > source.history:
        raise DefinitionError(
            f"{file}: feature {feature.name}",
            f"needs {needed} ticks, and of each entity {source.history} are kept: declare "
            f"`history = {needed}` or more of the source {source.name}",
        )


def planned(
    known: Catalog, sources: Iterable[Source], entities: Mapping[str, int]
) -> Iterator[PlannedHistory]:
    """What it costs to keep what sources, new or known, declare."""
    for source in sources:
        recorded = known.sources.get(source.name)
        before = 0 if recorded is None else recorded.history
        yield PlannedHistory(
            source=source.name,
            ticks=(before, source.history),
            tick_bytes=tick_bytes(source),
            entities=entities.get(source.name, 0),
        )


def tick_bytes(source: Source) -> int:
    """Bytes that Redis takes, about, for each tick of an entity that it keeps."""
    return tick_layout(len(source.fields)).size + CHUNK_BYTES // BLOCK


def _needs(known: Catalog, source: Source) -> Iterator[Need]:
    """What each version needs that is computed of a source."""
    for feature in known.features.values():
        if feature.source == source.name and not known.is_retired(feature.ref):
            yield Need(lookback(feature.expression, source, feature.ref), feature.ref)
