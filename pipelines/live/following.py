"""Features that are recorded while a worker works: it takes them over between two runs.

Four times a second the registry is asked whether anything has changed. Where a source is written in
a newer row schema than before, its next run is computed in that one: windows are loaded from what
the store keeps of each entity, so that a new feature has its value at the first tick. Where it has
another history, as many ticks are kept from its next run on.

A server that reads a row in a row schema that it does not know has to read the catalog first, and
all that it is asked meanwhile waits. It looks at the registry as often as a worker does. So where
rows are served at once, a worker takes a change over with the look after the one that saw it: every
server that can see the change has seen it by then, and what the change needs is made ready already.

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
from pipelines.runtime.daemon_threads import DaemonExecutor
from registry.definitions import Catalog
from registry.errors import RegistryError
from registry.serial import Serial

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
"""Seconds that the registry may take to answer; a server that hangs says nothing for ever."""

NO_ANSWER = (SQLAlchemyError, TimeoutError)
"""What is raised while the registry does not answer."""

NOT_HERE = (RegistryError, HistoryTooShort)
"""Why what is recorded cannot be computed here: this build does not know it, or it is of more ticks
than are kept. It stays so until something else is recorded, or the worker is restarted."""

Compute = Callable[[Catalog, str], RunComputation]
"""Makes the computation of a source, by its name, in its newest row schema."""


class Following:
    """Has `materializers`, by source, compute in the newest row schemas.

    `serial` gives the serial of the registry, `load` its catalog. `share` gives others a copy of
    the catalog, and `copy`, if there is one, reads that, while the registry does not answer and
    the store is ahead of what is known. With `one_look_later` servers see a change first. Where any
    of this fails everything is computed as before.
    """

    def __init__(
        self,
        serial: Callable[[], Serial | None],
        load: Callable[[], Catalog],
        compute: Compute,
        share: Callable[[Catalog], None] = lambda _: None,
        copy: Callable[[], Catalog] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        one_look_later: bool = False,
    ) -> None:
        self._serial = serial
        self._load = load
        self._compute = compute
        self._share = share
        self._copy = copy
        self._answer_seconds = answer_seconds
        self._one_look_later = one_look_later
        self._asking = DaemonExecutor("registry")
        self._seen: Serial | None = None
        self._unshared: Catalog | None = None
        self._unread: Set[str] = frozenset()
        self._coming: dict[str, tuple[Catalog, RunComputation]] = {}
        """What is made ready of each source, and of which catalog it is."""
        self._said: dict[str, str] = {}
        """What is said of each subject that something is wrong with."""
        self.materializers: Mapping[str, Materializer] = {}

    def look(self) -> None:
        """Take over what was recorded since the last look; what cannot be, is said once."""
        self._adopt_coming()
        try:
            serial = self._asking.submit(self._serial).result(self._answer_seconds)
            if serial is None or serial != self._seen:
                catalog = self._asking.submit(self._load).result(self._answer_seconds)
                self._unshared = catalog
                self._hand_on()
                self._take_over(catalog)
                self._seen = serial
        except (*NO_ANSWER, RegistryError) as error:
            self._say("the registry", _text(error))
            return
        self._say("the registry", None)
        self._hand_on()

    def newer(self, source: str, than: int) -> RunComputation | None:
        """The computation in the newest row schema, None where that has no higher id than `than`.

        Raises `StoreUnavailable` while it cannot be known, or not be computed here.
        """
        copied_for = ""
        try:
            try:
                catalog = self._asking.submit(self._load).result(self._answer_seconds)
            except NO_ANSWER as error:
                copied_for = _text(error)
                if self._copy is None:
                    raise
                catalog = self._copy()
            if catalog.writing.get(source, 0) > than:
                return self._compute(catalog, source)
        except (*NO_ANSWER, *NOT_HERE, StoreUnavailable) as error:
            said = dict.fromkeys(filter(None, (copied_for, _text(error))))
            raise StoreUnavailable(f"the registry: {'; '.join(said)}") from error
        if copied_for:
            raise StoreUnavailable(f"the registry: {copied_for}; the copy in Redis is older")
        return None

    def _take_over(self, catalog: Catalog) -> None:
        for source, materializer in self.materializers.items():
            try:
                if _differs(catalog, source, materializer.computation):
                    self._coming[source] = catalog, self._compute(catalog, source)
                self._say(source, None)
            except NOT_HERE as error:
                self._say(source, _text(error))
        if not self._one_look_later:
            self._adopt_coming()
        unread = catalog.writing.keys() - self.materializers.keys()
        for source in unread - self._unread:
            logger.warning(
                "source %s was recorded since this worker started: restart it, and it reads that "
                "source's topic as well",
                source,
            )
        self._unread = unread

    def _adopt_coming(self) -> None:
        """Adopt what was made ready, but where the store has asked for as much meanwhile."""
        for source, (catalog, computation) in self._coming.items():
            materializer = self.materializers[source]
            if _differs(catalog, source, materializer.computation):
                materializer.adopt(computation)
        self._coming.clear()

    def _hand_on(self) -> None:
        """Share the catalog; it is tried again with each look."""
        if self._unshared is None:
            return
        try:
            self._share(self._unshared)
        except StoreUnavailable as error:
            self._say("the copy of the catalog in Redis", _text(error))
        else:
            self._unshared = None
            self._say("the copy of the catalog in Redis", None)

    def _say(self, subject: str, refusal: str | None) -> None:
        if refusal == self._said.get(subject):
            return
        if refusal is None:
            del self._said[subject]
            logger.info("%s is followed again", subject)
            return
        self._said[subject] = refusal
        logger.warning("%s stays as it was before the newest change: %s", subject, refusal)


def _differs(catalog: Catalog, source: str, computation: RunComputation) -> bool:
    """Whether a source is computed otherwise by now: in a newer row schema, with another history.

    A registry that was restored from an older copy has an older row schema, and is not followed.
    """
    writing, written = catalog.writing.get(source, 0), computation.schema.id
    if writing != written:
        return writing > written
    return catalog.sources[source].history != computation.history


def _text(error: Exception) -> str:
    text = str(getattr(error, "orig", error)).strip().split("\n")[0]
    return text or "no answer"
