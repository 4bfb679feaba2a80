"""Definitions as the text of a features file: what `registry.features_file` reads as the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import tomli_w

from registry.definitions import EARLIEST_NS, Definitions, FeatureSet, Field, Place, Source
from registry.durations import duration
from registry.feature_tables import table_of


def text_of(definitions: Definitions) -> str:
    """The text. A version says all that it is, also where its parent says the same."""
    tables = {
        "source": [_source(source) for source in definitions.sources],
        "feature": [table_of(feature) for feature in definitions.features],
        "set": [_set(one) for one in definitions.sets],
    }
    return tomli_w.dumps({name: found for name, found in tables.items() if found})


def _source(source: Source) -> dict[str, Any]:
    plain = Source(source.name, source.topic, source.key, source.fields)
    given: dict[str, Any] = {
        "name": source.name,
        "topic": source.topic,
        "key": list(source.key),
        "fields": [_field(field) for field in source.fields],
        "skew": duration(source.skew_ns),
    }
    for name in (
        *("ts_unit", "positive", "items", "message_key", "partitioner", "format"),
        "history",
    ):
        if getattr(source, name) != getattr(plain, name):
            given[name] = getattr(source, name)
    if source.schema_id is not None:
        given["schema_id"] = source.schema_id
    if source.reject_schema_ids:
        given["reject_schema_ids"] = list(source.reject_schema_ids)
    if source.earliest_ns != EARLIEST_NS:
        given["earliest"] = _time(source.earliest_ns)
    if source.places:
        given["map"] = {place.name: _place(place) for place in source.places}
    if source.where:
        given["where"] = {one.path: list(one.values) for one in source.where}
    return given


def _field(field: Field) -> dict[str, Any]:
    given: dict[str, Any] = {"name": field.name}
    if field.optional:
        given["optional"] = True
    if field.default is not None:
        given["default"] = field.default
    return given


def _place(place: Place) -> str | dict[str, Any]:
    if place.path is None:
        return {"value": place.value}
    given: dict[str, Any] = {"path": place.path}
    if place.scale:
        given["scale"] = float(f"1e{place.scale}")
    if place.digits:
        given["digits"] = True
    return place.path if len(given) == 1 else given


def _time(nanoseconds: int) -> datetime:
    """The microseconds are exact: a file has no shorter time."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1_000)


def _set(one: FeatureSet) -> dict[str, Any]:
    given: dict[str, Any] = {
        "name": one.name,
        "version": one.version,
        "features": list(one.features),
        "owner": one.owner,
        "description": one.description,
    }
    return {name: value for name, value in given.items() if value}
