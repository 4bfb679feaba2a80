"""The registry that Feast's SDK reads, made of a catalog: which views, features and entities exist.

A file registry of Feast is one Protobuf message, `feast.core.Registry`. `LAYOUT` has of its
messages the fields that are written here, with the numbers that Feast gave them
(protos/feast/core/*.proto, the same from 0.30 to 0.67). Everything else keeps its default, so
neither Feast nor its generated code is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from registry.definitions import Catalog, FeatureVersion
from serving.features.lookup import Names
from serving.features.views import Views

SCHEMA_VERSION = "1"
"""`REGISTRY_SCHEMA_VERSION` of Feast."""

STRING, DOUBLE = 2, 5
"""Of `feast.types.ValueType.Enum`: the types of key fields and of features."""

NS_PER_SECOND = 10**9

Layout = Mapping[str, Mapping[str, tuple[int, str]]]

FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "string": FIELD.TYPE_STRING,
    "int32": FIELD.TYPE_INT32,
    "int64": FIELD.TYPE_INT64,
    "bool": FIELD.TYPE_BOOL,
}
"""An enumeration is an int32 on the wire."""

LAYOUT: Layout = {
    "Registry": {
        "entities": (1, "Entity*"),
        "registry_schema_version": (3, "string"),
        "version_id": (4, "string"),
        "last_updated": (5, "Time"),
        "feature_views": (6, "FeatureView*"),
        "feature_services": (7, "FeatureService*"),
        "projects": (17, "Project*"),
    },
    "Project": {"spec": (1, "ProjectSpec")},
    "ProjectSpec": {"name": (1, "string"), "description": (2, "string")},
    "Entity": {"spec": (1, "EntitySpec")},
    "EntitySpec": {
        "name": (1, "string"),
        "value_type": (2, "int32"),
        "description": (3, "string"),
        "join_key": (4, "string"),
        "project": (9, "string"),
    },
    "FeatureView": {"spec": (1, "FeatureViewSpec")},
    "FeatureViewSpec": {
        "name": (1, "string"),
        "project": (2, "string"),
        "entities": (3, "string*"),
        "features": (4, "Feature*"),
        "ttl": (6, "Time"),
        "online": (8, "bool"),
        "description": (10, "string"),
        "entity_columns": (12, "Feature*"),
    },
    "Feature": {
        "name": (1, "string"),
        "value_type": (2, "int32"),
        "tags": (3, "Tag*"),
        "description": (4, "string"),
    },
    "FeatureService": {"spec": (1, "FeatureServiceSpec")},
    "FeatureServiceSpec": {
        "name": (1, "string"),
        "project": (2, "string"),
        "features": (3, "Projection*"),
        "description": (5, "string"),
    },
    "Projection": {"feature_view_name": (1, "string"), "feature_columns": (2, "Feature*")},
    "Tag": {"key": (1, "string"), "value": (2, "string")},  # a map's entry
    "Time": {"seconds": (1, "int64"), "nanos": (2, "int32")},  # Timestamp and Duration alike
}
"""Of each message its fields by name: number and type; `*` means repeated."""


def registry_file(catalog: Catalog, project: str, now_ns: int) -> bytes:
    """The bytes of the registry of `project`, written at `now_ns`, Unix nanoseconds."""
    views = Views(Names(catalog))
    content = {
        "registry_schema_version": SCHEMA_VERSION,
        "version_id": hashlib.sha256(msgspec.json.encode(catalog)).hexdigest()[:32],
        "last_updated": _time(now_ns),
        "projects": [{"spec": {"name": project, "description": "Tickwell"}}],
        "entities": [
            {"spec": {**_field(name, project), "join_key": name, "value_type": STRING}}
            for name in _key_fields(catalog)
        ],
        "feature_views": [{"spec": _view(views, name, project)} for name in views.features],
        "feature_services": [
            {"spec": _service(views, name, project)} for name in sorted(views.services)
        ],
    }
    encoded: bytes = _message_type("Registry")(**content).SerializeToString(deterministic=True)
    return encoded


def _key_fields(catalog: Catalog) -> list[str]:
    """All key fields, each once: in Feast each is an entity with a join key of its name."""
    return list(dict.fromkeys(name for source in catalog.sources.values() for name in source.key))


def _field(name: str, project: str) -> dict[str, str]:
    return {"name": name, "project": project}


def _view(views: Views, name: str, project: str) -> dict[str, Any]:
    source = views.names.catalog.sources[name]
    features = views.features[name]
    ages = {feature.max_age_ns for feature in features}
    of_all = ages.pop() if len(ages) == 1 else None
    return {
        **_field(name, project),
        "description": f"Features of the ticks in {source.topic}.",
        "entities": list(source.key),
        "entity_columns": [{"name": field, "value_type": STRING} for field in source.key],
        "features": [_feature(feature) for feature in features],
        "online": True,
        **({} if of_all is None else {"ttl": _time(of_all)}),
    }


def _feature(feature: FeatureVersion) -> dict[str, Any]:
    """A feature as Feast's `Field`; its tags say what a field has no place for."""
    tags = {"version": feature.version, "entity": ", ".join(feature.entity)}
    if feature.max_age_ns is not None:
        tags["max_age_seconds"] = f"{feature.max_age_ns / NS_PER_SECOND:g}"
    if feature.aliases:
        tags["aliases"] = ", ".join(feature.aliases)
    if feature.owner:
        tags["owner"] = feature.owner
    if feature.tags:
        tags["tags"] = ", ".join(feature.tags)
    return {
        "name": feature.name,
        "value_type": DOUBLE,
        "description": feature.description,
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }


def _service(views: Views, name: str, project: str) -> dict[str, Any]:
    features = views.services[name]
    by_view: dict[str, list[FeatureVersion]] = {}
    for feature in features:
        by_view.setdefault(views.view_of(feature), []).append(feature)
    kind = ", ".join(features[0].entity)
    return {
        **_field(name, project),
        "description": f"All active features of ({kind}).",
        "features": [
            {"feature_view_name": view, "feature_columns": [_feature(one) for one in of]}
            for view, of in by_view.items()
        ],
    }


def _time(nanoseconds: int) -> dict[str, int]:
    seconds, nanos = divmod(nanoseconds, NS_PER_SECOND)
    return {"seconds": seconds, "nanos": nanos}


def _message_type(name: str) -> Any:
    """The class of a message of `LAYOUT`, in a pool of its own: Feast's types may be loaded too."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tickwell/feast.proto", package="tickwell.feast", syntax="proto3"
    )
    for message, fields in LAYOUT.items():
        file.message_type.append(_descriptor(message, fields.items(), file.package))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))


def _descriptor(
    message: str, fields: Iterable[tuple[str, tuple[int, str]]], package: str
) -> descriptor_pb2.DescriptorProto:
    described: Sequence[descriptor_pb2.FieldDescriptorProto] = [
        FIELD(
            name=name,
            number=number,
            label=FIELD.LABEL_REPEATED if kind.endswith("*") else FIELD.LABEL_OPTIONAL,
            type=SCALARS.get(kind.rstrip("*"), FIELD.TYPE_MESSAGE),
            type_name=None if kind.rstrip("*") in SCALARS else f".{package}.{kind.rstrip('*')}",
        )
        for name, (number, kind) in fields
    ]
    return descriptor_pb2.DescriptorProto(name=message, field=described)
