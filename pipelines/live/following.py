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

from sqlalchemy.exc import SQLAlchemyError

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import HistoryTooShort, StoreUnavailable
from pipelines.live.materializer import Materializer
from registry.definitions import Catalog
from registry.errors import RegistryError
from registry.serial import Serial

logger = logging.getLogger(__name__)

REFUSALS = (SQLAlchemyError, StoreUnavailable, RegistryError, HistoryTooShort)
"""Why what is recorded may not be taken over now: nobody answers, this build does not know it, or
it is of more ticks than are kept."""

Compute = Callable[[Catalog, str], RunComputation]
"""Makes the computation of a source, by its name, in its newest row schema."""


class Following:
    """Has `materializers`, by source, compute in the newest row schemas.

    `serial` gives the serial of the registry, and `load` its catalog. Whatever of `REFUSALS` they
    or `compute` raise, everything is computed as before. `copy` gives a copy of the catalog, which
    is asked while the registry does not answer and the store is ahead of what is known.
    """

    def __init__(
        self,
        serial: Callable[[], Serial | None],
        load: Callable[[], Catalog],
        compute: Compute,
        copy: Callable[[], Catalog] | None = None,
    ) -> None:
        self._serial = serial
        self._load = load
        self._compute = compute
        self._copy = copy or load
        self._seen: Serial | None = None
        self._unread: Set[str] = frozenset()
        self._refusal: str | None = None
        self.materializers: Mapping[str, Materializer] = {}

    def look(self) -> None:
        """Take over what was recorded since the last look; what cannot be, is said once."""
        try:
            serial = self._serial()
            if serial is not None and serial == self._seen:
                return
            catalog = self._load()
            for source, materializer in self.materializers.items():
                if catalog.writing.get(source, 0) > materializer.schema.id:
                    materializer.adopt(self._compute(catalog, source))
        except REFUSALS as error:
            self._say(_said(error))
            return
        self._say(None)
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

        Raises `StoreUnavailable` while it cannot be known, or not be computed here.
        """
        try:
            try:
                catalog = self._load()
            except SQLAlchemyError:
                catalog = self._copy()
            is_newer = catalog.writing.get(source, 0) > than
            return self._compute(catalog, source) if is_newer else None
        except REFUSALS as error:
            raise StoreUnavailable(f"the registry: {_said(error)}") from error

    def _say(self, refusal: str | None) -> None:
        if refusal is not None and self._refusal is None:
            logger.warning("what is recorded is not taken over now: %s", refusal)
        elif refusal is None and self._refusal is not None:
            logger.info("what is recorded is taken over again")
        self._refusal = refusal


def _said(error: Exception) -> str:
    return str(getattr(error, "orig", error)).strip().split("\n")[0]
