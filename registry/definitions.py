"""Sources, features and row schemas as plain immutable values.

Everything downstream (kernel programs, packed rows, HTTP answers) is derived from these values;
`registry.features_file` reads them from `features.toml`, `registry.catalog` keeps them in Postgres.
A definition with a field that is unknown here is refused: it may mean other values.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from registry.paths import Path, of_name, parse_path

TimeUnit = Literal["s", "ms", "us", "ns"]
Partitioner = Literal["murmur2", "crc32", "fnv1a", "any"]
MessageKey = Literal["first", "any"]
Format = Literal["json", "avro", "protobuf", "json-schema"]
SET_PREFIX = "set:"
"""What stands before the name of a set where features are named."""

HISTORY = 1_024
"""Ticks of an entity that the online store keeps, unless the source declares another number."""

EARLIEST_NS = 31_536_000 * 10**9
"""The year 1971, nanoseconds UTC: integers of another unit, and dates like 20200102, are read as
times of 1970."""


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


class Place(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a source's ticks have the value of `name`: at `path`, or it is always `value`.

    `name` is a key field, a numeric field, `ts`, `seq` or `op`. A numeric field with a `scale`
    other than 0 holds integers, which are multiplied with 10^scale. With `digits` a `ts` may be an
    integer in quotes.
    """

    name: str
    path: str | None = None
    value: str | float | None = None
    scale: int = 0
    digits: bool = False


class Condition(Struct, frozen=True, forbid_unknown_fields=True, eq=False):
    """A message is one of the source's only if it has one of `values` at `path`."""

    path: str
    values: tuple[bool | int | str, ...]

    @property
    def identity(self) -> tuple[str, tuple[tuple[str, bool | int | str], ...]]:
        """What makes it equal to another: `true` is not the number 1, as Python would have it."""
        return self.path, tuple((type(value).__name__, value) for value in self.values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """A Kafka topic of ticks: their entity (`key`) and what they measure (`fields`, in order).

    `key[0]` is also the Kafka message key, unless `message_key` is `any`. `partitioner` is how the
    producers choose the partition of a key. `skew_ns` bounds, in nanoseconds, how far a tick may
    lie behind the newest one of its entity, and ahead of its record's timestamp; `earliest_ns` is
    the first time that a tick may have, nanoseconds UTC.

    What a message looks like: `places` has the names whose values are not in a field of that name;
    `items` is the path of the array that holds the ticks; a tick for which not all of `where` hold
    is passed over. A `format` other than JSON is one of a schema registry's; its values are read in
    the schema that they were written in, or in the one with the id `schema_id`. Messages in the
    schemas `reject_schema_ids` (ids, and GUIDs as text) are rejected, whatever the registry says.

    `history` is how many ticks of an entity the online store keeps. It bounds the windows of the
    source's features, and changes no value.
    """

    name: str
    topic: str
    key: tuple[str, ...]
    fields: tuple[Field, ...]
    ts_unit: TimeUnit = "ms"
    skew_ns: int = 1_000_000_000
    positive: bool = False
    places: tuple[Place, ...] = ()
    items: str | None = None
    where: tuple[Condition, ...] = ()
    message_key: MessageKey = "first"
    partitioner: Partitioner = "murmur2"
    earliest_ns: int = EARLIEST_NS
    format: Format = "json"
    schema_id: int | None = None
    reject_schema_ids: tuple[int | str, ...] = ()
    history: int = HISTORY

    @property
    def field_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    @property
    def is_mapped(self) -> bool:
        """Whether its messages are more than flat objects with fields of these names."""
        return bool(self.places or self.items or self.where)

    @property
    def tick_names(self) -> tuple[str, ...]:
        """The names of everything that a tick may have: its key, its numbers, its time."""
        return (*self.key, *self.field_names, "ts", "seq", "op")

    @property
    def places_by_name(self) -> dict[str, Place]:
        """The place of each of `tick_names`, in that order."""
        given = {place.name: place for place in self.places}
        return {name: given.get(name) or Place(name, of_name(name)) for name in self.tick_names}

    @property
    def paths(self) -> dict[str, Path]:
        """The path of each of `tick_names` that a message has; the others are constants."""
        where = f"source {self.name}"
        return {
            name: parse_path(place.path, where)
            for name, place in self.places_by_name.items()
            if place.path is not None
        }


class RulesStart(Struct, frozen=True):
    """The first offset of a partition of a topic incarnation that rules decide."""

    topic_id: bytes
    partition: int
    offset: int


class RecordedRules(Struct, frozen=True):
    """A source as it was declared once, and where in the log that began to hold.

    A partition that is not among `starts` had not begun, or the rules were the first ones.
    `of_earlier_build` is a definition whose meaning only an earlier build knows: this one has none
    of the rules that decided then.
    """

    id: int
    source: Source
    starts: tuple[RulesStart, ...] = ()
    of_earlier_build: bool = False


class FeatureVersion(Struct, frozen=True, forbid_unknown_fields=True):
    """One immutable version of a feature.

    A *materialized* feature has a `source` and is computed by the kernel as ticks arrive. A
    *derived* one has none: it is an arithmetic expression over other features, computed on read for
    an entity of kind `entity`; with `over` it sums over the entities of that source which share the
    entity's key fields (the positions of a portfolio). `parts` are the versions that it is computed
    of, as `name@version`; a file may leave out some, which are pinned when it is recorded.

    `parent` is the version that this one was made from; `unit` is that of its values. Both say
    nothing about the values themselves.
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
    unit: str = ""
    parent: str | None = None
    parts: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """The name that pins this version, `price_sma_5@1.0.0`."""
        return f"{self.name}@{self.version}"

    @property
    def derived(self) -> bool:
        return self.source is None

    @property
    def pins(self) -> dict[str, str]:
        """The pinned version of each part, as `name@version`, by its name."""
        return {ref.partition("@")[0]: ref for ref in self.parts}


class FeatureSet(Struct, frozen=True, forbid_unknown_fields=True):
    """One immutable version of a set of features that a model reads, each as `name@version`.

    No two are versions of one feature, so a set has one value under each name.
    """

    name: str
    version: str
    features: tuple[str, ...]
    description: str = ""
    owner: str = ""

    @property
    def ref(self) -> str:
        """The name that requests give it, `set:momentum@1`."""
        return f"{SET_PREFIX}{self.name}@{self.version}"


class Arm(Struct, frozen=True):
    """What an experiment calls a `variant`: a version of the feature, and its share by weight."""

    variant: str
    version: str
    weight: int


class Experiment(Struct, frozen=True):
    """A feature's name means the versions of `arms`, by the entity that is asked for or by whom."""

    name: str
    feature: str
    arms: tuple[Arm, ...]
    by: Literal["entity", "consumer"] = "entity"


class Withdrawal(Struct, frozen=True):
    """A version that is given up: deprecated since `since`, and retired since `retired_at`.

    A deprecated version is still computed. A retired one is in no new row; nobody can ask for it.
    `replacement` is the version, as `name@version`, that its readers should take.
    """

    since: datetime
    retired_at: datetime | None = None
    replacement: str | None = None


class Definitions(Struct, frozen=True):
    """What a features file declares, in its order; `file` names it in errors."""

    sources: tuple[Source, ...]
    features: tuple[FeatureVersion, ...]
    file: str
    sets: tuple[FeatureSet, ...] = ()


class RowSchema(Struct, frozen=True):
    """The ordered feature versions (as `name@version`) that a row of `source` holds, by id."""

    id: int
    source: str
    features: tuple[str, ...]


class Catalog(Struct, frozen=True):
    """One consistent reading of the registry.

    `features` is keyed by `name@version`; `active` maps each feature's name to its active version;
    `schemas` is keyed by row schema id and keeps old schemas, so that old rows stay readable;
    `writing` maps each source to the id of the schema that is written today. `rules` has what each
    source was declared to be, the oldest first; the last one is the source in `sources`. `sets` is
    keyed as requests name them, `withdrawn` by `name@version`. `experiments` has those that run, by
    the name of their feature.
    """

    sources: dict[str, Source]
    features: dict[str, FeatureVersion]
    active: dict[str, str]
    schemas: dict[int, RowSchema]
    writing: dict[str, int]
    rules: dict[str, tuple[RecordedRules, ...]] = {}
    sets: dict[str, FeatureSet] = {}
    withdrawn: dict[str, Withdrawal] = {}
    experiments: dict[str, Experiment] = {}

    def is_retired(self, ref: str) -> bool:
        """Whether a version, `name@version`, is in no new row."""
        withdrawal = self.withdrawn.get(ref)
        return withdrawal is not None and withdrawal.retired_at is not None
