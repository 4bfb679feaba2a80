"""Sources, features and row schemas as plain immutable values.

Everything downstream (kernel programs, packed rows, HTTP answers) is derived from these values;
`registry.features_file` reads them from `features.toml`, `registry.catalog` keeps them in Postgres.
A definition with a field that is unknown here is refused: it may mean other values.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

TimeUnit = Literal["s", "ms", "us", "ns"]


class Field(Struct, frozen=True, forbid_unknown_fields=True):
    """A numeric field of a source's ticks.

    `default` fills a tick that leaves the field out; an `optional` field without a default is
    NaN there. A field that is neither is required.
    """

    name: str
    optional: bool = False
    default: float | None = None

    @property
    def required(self) -> bool:
        return not self.optional and self.default is None


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """A Kafka topic of ticks: their entity (`key`) and what they measure (`fields`, in order).

    `key[0]` is also the Kafka message key. `skew_ns` bounds, in nanoseconds, how far a tick may lie
    behind the newest one of its entity, and ahead of its record's timestamp.
    """

    name: str
    topic: str
    key: tuple[str, ...]
    fields: tuple[Field, ...]
    ts_unit: TimeUnit = "ms"
    skew_ns: int = 1_000_000_000
    positive: bool = False

    @property
    def field_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)


class FeatureVersion(Struct, frozen=True, forbid_unknown_fields=True):
    """One immutable version of a feature.

    A *materialized* feature has a `source` and is computed by the kernel as ticks arrive. A
    *derived* one has none: it is an arithmetic expression over other features, computed on read for
    an entity of kind `entity`; with `over` it sums over the entities of that source which share the
    entity's key fields (the positions of a portfolio).
    """

    name: str
    version: str
    entity: tuple[str, ...]
    expression: str
    source: str | None = None
    over: str | None = None
    max_age_ns: int | None = None
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """The name that pins this version, `price_sma_5@1.0.0`."""
        return f"{self.name}@{self.version}"

    @property
    def derived(self) -> bool:
        return self.source is None


class Definitions(Struct, frozen=True):
    """What a features file declares, in its order; `file` names it in errors."""

    sources: tuple[Source, ...]
    features: tuple[FeatureVersion, ...]
    file: str


class RowSchema(Struct, frozen=True):
    """The ordered feature versions (as `name@version`) that a row of `source` holds, by id."""

    id: int
    source: str
    features: tuple[str, ...]


class Catalog(Struct, frozen=True):
    """One consistent reading of the registry.

    `features` is keyed by `name@version`; `active` maps each feature's name to its active version;
    `schemas` is keyed by row schema id and keeps old schemas, so that old rows stay readable;
    `writing` maps each source to the id of the schema that is written today.
    """

    sources: dict[str, Source]
    features: dict[str, FeatureVersion]
    active: dict[str, str]
    schemas: dict[int, RowSchema]
    writing: dict[str, int]
