"""Served values, and the values of one entity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict


class FeatureValue(Struct, frozen=True):
    """A value as it is served.

    `value` is None where the status says that there is none (README has the table: `ok`, `stale`
    and `lagging` have a value). `event_time` is RFC 3339 text in UTC with nine digits of a second,
    so that texts sort as times do. `age_seconds` is what had passed since then when the server
    answered. `tier` is the store that it is from: `hot`, `warm` or `cold`. `deprecated` is since
    when the version is to be given up; `experiment` and `variant` are what has decided about it.
    """

    value: float | None
    status: str
    version: str
    event_time: str | None = None
    age_seconds: float | None = None
    tier: str | None = None
    deprecated: str | None = None
    experiment: str | None = None
    variant: str | None = None

    @property
    def is_ok(self) -> bool:
        """Whether it was computed from the newest accepted tick, which is not too old."""
        return self.status == "ok"

    @property
    def event_time_ns(self) -> int | None:
        """The event time in nanoseconds UTC."""
        return None if self.event_time is None else nanoseconds(self.event_time)

    @property
    def event_datetime(self) -> datetime | None:
        """The event time as a datetime in UTC, which has microseconds: the rest is cut off."""
        if self.event_time is None:
            return None
        seconds, rest = divmod(nanoseconds(self.event_time), 10**9)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


class FeatureInfo(Struct, frozen=True):
    """A version of a feature: what it is of, where it comes from, and what is said of it.

    `source` is None of a derived feature. `max_age_seconds` is the age from which a value is
    `stale`, None where none is too old. What comes after it is told of a single feature only:
    `parts` are the versions that a derived one is computed from, with `over` it is a sum over the
    entities of that source, `active` says whether the name alone means this version, `parent` is
    the version that it was made from, `state` its state, `replacement` what to take instead of it.
    """

    name: str
    version: str
    entity: tuple[str, ...]
    source: str | None = None
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    max_age_seconds: float | None = None
    expression: str | None = None
    over: str | None = None
    parts: tuple[str, ...] = ()
    active: bool = True
    unit: str = ""
    parent: str | None = None
    state: str = ""
    replacement: str | None = None


class EntityFeatures(Mapping[str, FeatureValue]):
    """The features of one entity by the names that were asked for."""

    __slots__ = ("_features", "entity")

    def __init__(self, entity: Mapping[str, str], features: Mapping[str, FeatureValue]) -> None:
        self.entity = dict(entity)
        """The entity by key field, as `{"symbol": "AAPL"}`."""
        self._features = features

    def __getitem__(self, name: str) -> FeatureValue:
        return self._features[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)

    def __repr__(self) -> str:
        return f"EntityFeatures({self.entity}, {dict(self._features)})"

    def to_dict(self) -> dict[str, float | None]:
        """The values alone, by name."""
        return {name: value.value for name, value in self._features.items()}

    def as_answer(self) -> dict[str, Any]:
        """The same as the server's JSON has it."""
        features = {name: _as_answer(value) for name, value in self._features.items()}
        return {"entity": self.entity, "features": features}


SOMETIMES = ("deprecated", "experiment", "variant")
"""Fields of a value that an answer only has where there is something to say."""


def _as_answer(value: FeatureValue) -> dict[str, Any]:
    said = asdict(value)
    return {name: one for name, one in said.items() if one is not None or name not in SOMETIMES}


def nanoseconds(text: str) -> int:
    """The nanoseconds UTC of RFC 3339 text that ends with Z."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 10**9 + int(fraction.ljust(9, "0")[:9])


def rfc_3339(time_ns: int) -> str:
    """RFC 3339 text in UTC with nine digits of a second, the inverse of `nanoseconds`."""
    seconds, rest = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
