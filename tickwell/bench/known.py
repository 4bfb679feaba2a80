"""What the stores know: features and entities to ask for, and how much hot holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

from redis.exceptions import NoPermissionError, RedisError

from registry import catalog as recorded
from registry import redis_clients
from registry.definitions import Catalog, Source
from registry.formats.entity_name import key_values
from registry.formats.redis_keys import CATALOG_KEY, CLUSTER_BUCKETS, rows_key
from tickwell.errors import TickwellError, one_line

SCANNED_AT_ONCE = 1_000
FULL = 0.98
"""Share of its memory from which hot counts as full: it evicts before it reaches the whole of it.
"""

Kind = tuple[str, ...]
"""Key fields of entities, `("symbol",)`."""


class Hot(NamedTuple):
    """How the hot tier's Redis is."""

    keys: int
    used_bytes: int
    empty_bytes: int
    """What it takes without keys."""
    bound_bytes: int
    """What it may take, 0 where it has no bound."""

    def entities(self, rows_an_entity: int) -> float | None:
        """How many entities it holds when it is full, if each has so many rows; None if unknown.

        While it is not full that is reckoned from what its keys take now.
        """
        if not self.bound_bytes:
            return float("inf")
        if not self.keys:
            return None
        if self.used_bytes >= FULL * self.bound_bytes:
            return self.keys / rows_an_entity
        taken = max(self.used_bytes - self.empty_bytes, 1)
        return self.keys * (self.bound_bytes - self.empty_bytes) / taken / rows_an_entity


class Stores:
    """The Redis of a stack, read by a command."""

    def __init__(self, redis: str, cluster: bool) -> None:
        self._url, self._cluster = redis, cluster

    def catalog(self) -> Catalog:
        """The catalog's copy. Raises `TickwellError` where there is none."""
        with closing(self._client()) as client:
            copy = _asked("TICKWELL_REDIS", lambda: client.get(CATALOG_KEY))
        if copy is None:
            raise TickwellError(
                "TICKWELL_REDIS: no features are recorded there yet: run `tickwell migrate` and a "
                "worker, or name --feature and --entities"
            )
        return recorded.decode(copy)

    def entities(self, catalog: Catalog, kind: Kind, limit: int) -> list[dict[str, str]]:
        """Entities of a kind of which there are rows, at most `limit`. Raises `TickwellError`."""
        sources = [source for source in catalog.sources.values() if set(kind) <= set(source.key)]
        sources.sort(key=lambda source: len(source.key))
        for source in sources:
            with closing(self._client()) as client:
                found = _asked(
                    "TICKWELL_REDIS",
                    lambda: list(islice(self._scanned(client, source, kind), limit)),  # noqa: B023
                )
            if found:
                return [dict(zip(kind, values, strict=True)) for values in found]
        raise TickwellError(
            f"TICKWELL_REDIS holds no entity of ({', '.join(kind)}) yet: is a worker running, and "
            "are there ticks? `tickwell demo` sends some; --entities names a file of your own"
        )

    def _scanned(self, client: Any, source: Source, kind: Kind) -> Iterator[Kind]:
        """The entities of a source, each once, by the fields of `kind`."""
        seen: set[Kind] = set()
        for bucket in range(CLUSTER_BUCKETS if self._cluster else 1):
            key = rows_key(source.name, bucket)
            for name, _ in client.hscan_iter(key, count=SCANNED_AT_ONCE):
                named = dict(zip(source.key, key_values(name.decode()), strict=True))
                values = tuple(named[field] for field in kind)
                if values not in seen:
                    seen.add(values)
                    yield values

    def _client(self) -> Any:
        return _asked("TICKWELL_REDIS", lambda: redis_clients.survey(self._url, self._cluster))


def kind_of(catalog: Catalog, features: Sequence[str], kind: str | None) -> Kind:
    """The kind of entities that `features` are of, or `kind`, or the one with most features.

    Raises `TickwellError` for features that are unknown or of several kinds.
    """
    if kind is not None:
        return tuple(kind.split(","))
    by_name = {
        alias: feature
        for feature in catalog.features.values()
        for alias in (feature.name, feature.ref, *feature.aliases)
    }
    if unknown := [name for name in features if name not in by_name]:
        raise TickwellError(f"--feature {unknown[0]}: there is no such feature")
    asked = features or _active(catalog)
    kinds = Counter(by_name[name].entity for name in asked)
    if features and len(kinds) > 1:
        named = "; ".join(f"({', '.join(kind)})" for kind in kinds)
        raise TickwellError(f"--feature: these are of several kinds of entities, {named}")
    return kinds.most_common(1)[0][0]


def features_of(catalog: Catalog, kind: Kind) -> list[str]:
    """The active features of a kind that are stored: those that are derived cost what they sum up.

    Raises `TickwellError` where there are none.
    """
    found = [name for name in _active(catalog) if catalog.features[name].entity == kind]
    if not found:
        raise TickwellError(f"--kind: no stored feature is of ({', '.join(kind)}); name --feature")
    return [catalog.features[name].name for name in found]


def rows_an_entity(catalog: Catalog, kind: Kind) -> int:
    """How many rows an entity of a kind has: one in each source that is keyed so."""
    return max(1, sum(source.key == kind for source in catalog.sources.values()))


def hot(url: str) -> Hot:
    """How the hot tier is. Raises `TickwellError`."""
    with closing(redis_clients.survey(url)) as client:
        found: Mapping[str, Any] = _asked("TICKWELL_REDIS_HOT", lambda: client.info("memory"))
        keys: int = _asked("TICKWELL_REDIS_HOT", client.dbsize)
    return Hot(
        keys=keys,
        used_bytes=int(found["used_memory"]),
        empty_bytes=int(found.get("used_memory_startup", 0)),
        bound_bytes=int(found.get("maxmemory", 0)),
    )


def _active(catalog: Catalog) -> list[str]:
    """The active versions of features that are stored."""
    refs = [f"{name}@{version}" for name, version in catalog.active.items()]
    return [ref for ref in refs if not catalog.features[ref].derived]


def _asked(setting: str, read: Any) -> Any:
    try:
        return read()
    except NoPermissionError as error:
        raise TickwellError(
            f"{setting}: its user may not do what `tickwell bench` needs, which README lists with "
            f"the rights of ACL users: {one_line(error)}"
        ) from None
    except (RedisError, OSError) as error:
        raise TickwellError(f"{setting} does not answer: {one_line(error)}") from None
