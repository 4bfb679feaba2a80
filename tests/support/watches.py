"""What servers watch, of which a test decides what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping

from registry.definitions import Catalog
from serving.errors import NotReady
from serving.features.lookup import Names


class FixedCatalog:
    """A `CatalogWatch` that has read a catalog, or with None no one yet."""

    def __init__(self, catalog: Catalog | None) -> None:
        self.become(catalog)

    def become(self, catalog: Catalog | None) -> None:
        """Have read another catalog."""
        self._names = None if catalog is None else Names(catalog)

    @property
    def names(self) -> Names:
        if self._names is None:
            raise NotReady("no features are recorded yet")
        return self._names


class OnTime:
    """A `WorkersWatch` that says until when each topic is on time, whichever store it is in."""

    def __init__(self, until: Mapping[str, float] | None = None) -> None:
        self._until = until or {}

    @property
    def lag(self) -> OnTime:
        return self

    def on_time_until(self, topic: str, sink: str = "online") -> float:
        return self._until.get(topic, math.inf)
