"""The part of an Avro schema that a source reads; a schema to read in needs no other fields.

A message may hold many elements of few bytes each. In a schema to read in each of them has all the
fields of its record there, which a default fills; so those that nobody reads are left out, and what
a message takes in memory is bounded by its bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from pipelines.ticks.wire.wanted_values import Wanted


def project(schema: Any, named: Mapping[str, Any], wanted: Wanted) -> None:
    """Remove from the records in a parsed schema, which are among `named`, what is not wanted.

    A record that is in several places keeps what is wanted in any of them.
    """
    kept: defaultdict[str, set[str]] = defaultdict(set)
    _collect(schema, named, wanted, kept)
    for name, kind in named.items():
        if "fields" in kind:
            kind["fields"][:] = [field for field in kind["fields"] if field["name"] in kept[name]]


def _collect(
    schema: Any, named: Mapping[str, Any], wanted: Wanted, kept: defaultdict[str, set[str]]
) -> None:
    """Note the fields that are wanted, by the name of their record. No record is within itself."""
    match named.get(schema, schema) if isinstance(schema, str) else schema:
        case list() as branches:
            for branch in branches:
                _collect(branch, named, wanted, kept)
        case {"fields": fields, "name": name}:
            kept[name].update(wanted.fields)
            for field in fields:
                if field["name"] in wanted.fields:
                    _collect(field["type"], named, wanted.fields[field["name"]], kept)
        case {"type": "array", "items": items}:
            _collect(items, named, wanted, kept)
        case {"type": "map", "values": values}:
            for inner in wanted.fields.values():
                _collect(values, named, inner, kept)
        case {"type": dict() | list() as written}:
            _collect(written, named, wanted, kept)
