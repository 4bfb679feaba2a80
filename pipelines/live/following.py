"""Features that are recorded while a worker works: it takes them over between two runs.

Twice a second the registry is asked whether anything has changed. Where a source is written in a
newer row schema than before, its next run is computed in that one: windows are loaded from what the
store keeps of each entity, so that a new feature has its value at the first tick.

Workers see a change at different moments, and a partition may move from one that has seen it to one
that has not. So the store refuses a run in an older row schema than is recorded (Postgres), or than
was stored (Redis), and the registry is asked at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Set

from sqlalchemy.exc import DBAPIError

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import StoreUnavailable
from pipelines.live.materializer import Materializer
from registry.definitions import Catalog
from registry.errors import RegistryError
from registry.lifecycle.audit import Serial

logger = logging.getLogger(__name__)

Compute = Callable[[Catalog, str], RunComputation]
"""Makes the computation of a source, by its name, in its newest row schema."""


class Following:
    """Has `materializers`, by source, compute in the newest row schemas.

    `serial` gives the serial of the registry, and `load` its catalog. They
    raise `DBAPIError` and `StoreUnavailable` while it does not answer, and `RegistryError` where it
    cannot be read; then everything is computed as before.
    """

    def __init__(
        self, serial: Callable[[], Serial | None], load: Callable[[], Catalog], compute: Compute
    ) -> None:
        self._serial = serial
        self._load = load
        self._compute = compute
        self._seen: Serial | None = None
        self._unread: Set[str] = frozenset()
        self._refusal: str | None = None
        self.materializers: Mapping[str, Materializer] = {}

    def look(self) -> None:
        """Take over what was recorded since the last look.

        Raises `HistoryTooShort` for a feature of more ticks than the store keeps.
        """
        try:
            serial = self._serial()
            if serial == self._seen:
                return
            catalog = self._load()
        except (DBAPIError, StoreUnavailable, RegistryError) as error:
            self._say(str(getattr(error, "orig", error)).strip().split("\n")[0])
            return
        self._say(None)
        for source, materializer in self.materializers.items():
            if catalog.writing[source] > materializer.schema.id:
                self._take_over(catalog, source, materializer)
        unread = catalog.writing.keys() - self.materializers.keys()
        for source in unread - self._unread:
            logger.warning(
                "source %s was recorded since this worker started: restart it, and it reads that "
                "source's topic as well",
                source,
            )
        self._seen, self._unread = serial, unread

    def newer(self, source: str, than: int) -> RunComputation | None:
        """The computation in the newest row schema, None where that has no higher id than `than`.

        Raises `StoreUnavailable` while it cannot be known, and as `look`.
        """
        try:
            catalog = self._load()
        except (DBAPIError, RegistryError) as error:
            raise StoreUnavailable(f"the registry: {getattr(error, 'orig', error)}") from error
        return self._compute(catalog, source) if catalog.writing[source] > than else None

    def _take_over(self, catalog: Catalog, source: str, materializer: Materializer) -> None:
        materializer.adopt(self._compute(catalog, source))
        schema = catalog.schemas[catalog.writing[source]]
        logger.info("%s is computed in row schema %d from now on", source, schema.id)

    def _say(self, refusal: str | None) -> None:
        if refusal is not None and self._refusal is None:
            logger.warning("the registry is not followed until it answers: %s", refusal)
        elif refusal is None and self._refusal is not None:
            logger.info("the registry is followed again")
        self._refusal = refusal
