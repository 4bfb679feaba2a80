"""The bodies that clients may send, and their limits."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from serving.errors import InvalidRequest
from serving.features.lookup import MAX_FEATURES

MAX_BODY_BYTES = 262_144
MAX_ENTITIES = 500
"""Number of entities in a request."""

Text = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f]*\Z")]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Entity = Annotated[dict[Name, Text], Meta(min_length=1, max_length=8)]
Features = Annotated[list[Name], Meta(min_length=1, max_length=MAX_FEATURES)]


class OnlineRequest(Struct, forbid_unknown_fields=True):
    """Features of one entity, named by `entity_type` and `entity_value`, or by `entity`."""

    features: Features
    entity_type: Name | None = None
    entity_value: Text | None = None
    entity: Entity | None = None

    def key(self) -> dict[str, str]:
        """The entity by key field. Raises `InvalidRequest` unless it is named in just one way."""
        named = self.entity_type is not None and self.entity_value is not None
        if named and self.entity is None:
            return {str(self.entity_type): str(self.entity_value)}
        if self.entity is not None and self.entity_type is None and self.entity_value is None:
            return self.entity
        raise InvalidRequest(
            'name the entity by "entity_type" and "entity_value", or by "entity", as in '
            '{"entity": {"symbol": "AAPL"}}'
        )


class BatchRequest(Struct, forbid_unknown_fields=True):
    """The same features of several entities, each named by its key fields."""

    features: Features
    entities: Annotated[list[Entity], Meta(min_length=1, max_length=MAX_ENTITIES)]


R = TypeVar("R", bound=Struct)


def parse(body: bytes, kind: type[R]) -> R:
    """The request in a body. Raises `InvalidRequest`, which says where it is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(
            f"{error}. At most {MAX_FEATURES} features and {MAX_ENTITIES} entities are taken"
        ) from None
