"""Work on the machines of a Dask cluster, in parts that do not depend on each other.

    this process ──► scheduler ──► workers: part by part
         ▲                             │
         └────── progress, results ────┘

A part is done by the same code as in one process, so its result has the same bits. Only what is
said of it travels: its rows go from its worker to the stores, or to a folder that all share. Dask
does a part again whose worker was lost; what is done with a part must bear that.
"""

from __future__ import annotations

import pickle
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tickwell.errors import TickwellError, one_line

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 10
"""Seconds for the scheduler to answer, and for a first worker to be there."""

POLL_SECONDS = 0.1
"""Seconds between two looks at what is done."""

EXTRA = "tickwell[dask]"


class Stop(Protocol):
    """What says that work is to stop."""

    def is_set(self) -> bool: ...


Job = Callable[[Any, Callable[[Any], None], Stop], Any]
"""Does a part, tells how far it is, and ends early, with what is done, once it is to stop."""


class Failed(NamedTuple):
    """Why a part was not done; not every error can be sent."""

    why: str


class PartFailed(TickwellError):
    """A part was not done."""


class DaskCluster:
    """A cluster; `dask_cluster` connects to one."""

    def __init__(self, client: Client, address: str) -> None:
        self._client = client
        self._address = address

    def check_folder(self, folder: Path) -> None:
        """Raises `TickwellError` unless all workers see what is in a folder of this process."""
        mark = folder / f"seen-{uuid.uuid4().hex}"
        mark.touch()
        try:
            self.check_seen(mark)
        finally:
            mark.unlink()

    @property
    def workers(self) -> int:
        """How many parts are done at the same time."""
        return sum(self._client.nthreads().values())

    def check_seen(self, place: Path) -> None:
        """Raises `TickwellError` unless all workers see a file or a folder of this process."""
        blind = self._workers_where(False, _seen_by(str(place.resolve())))
        if blind:
            folder = place if place.is_dir() else place.parent
            raise TickwellError(
                f"--scheduler {self._address}: workers there do not see {folder}: "
                f"{', '.join(blind)}. All machines have to share it, under the same path"
            )

    def run(
        self,
        job: Job,
        parts: Sequence[Any],
        tell: Callable[[Mapping[int, Any]], None],
        stop: Stop,
    ) -> list[Any]:
        """What `job` makes of each of the parts, in their order.

        `tell` is called with the progress of the parts by their numbers. Where `stop` is set, parts
        end early, and those that were not begun are None. Raises `PartFailed` with the first error,
        after the other parts have ended, and where the scheduler is lost.
        """
        from distributed import Event

        topic, ended = f"tickwell-{uuid.uuid4().hex}", Event(client=self._client)
        progress: dict[int, Any] = {}
        self._client.subscribe_topic(topic, partial(_take, progress))
        futures = [
            self._client.submit(
                *(_done, job, number, part, topic, ended.name),
                key=f"{topic}-{number}",
                pure=False,
            )
            for number, part in enumerate(parts)
        ]
        try:
            return self._results(futures, lambda: tell(dict(progress)), ended, stop)
        finally:
            ended.set()
            self._client.unsubscribe_topic(topic)
            self._client.cancel(futures)

    def _results(
        self, futures: Sequence[Future], tell: Callable[[], None], ended: Any, stop: Stop
    ) -> list[Any]:
        failed: list[str] = []
        left = list(futures)
        while left:
            if self._client.status != "running":
                raise PartFailed(
                    f"the scheduler at {self._address} was lost; run the same command again"
                )
            if (stop.is_set() or failed) and not ended.is_set():
                ended.set()
            left, done = [one for one in left if not one.done()], left
            failed += [why for one in done if one.done() and (why := _failure(one)) is not None]
            tell()
            if left:
                time.sleep(POLL_SECONDS)
        if failed:
            raise PartFailed(failed[0])
        return [one.result() for one in futures]

    def check_installed(self, seconds: float) -> None:
        """Raises `TickwellError` unless workers are there, all with this version of Tickwell."""
        try:
            self._client.wait_for_workers(1, timeout=seconds)
        except TimeoutError:
            raise TickwellError(
                f"--scheduler {self._address}: no worker is there; start some, as "
                f"`dask worker {self._address}`"
            ) from None
        own = version("tickwell")
        others = self._workers_where(False, _has_version(own))
        if others:
            raise TickwellError(
                f"--scheduler {self._address}: workers there do not have Tickwell {own}, as this "
                f"process has: {', '.join(others)}. Install the same version on all machines"
            )

    def _workers_where(self, answer: bool, asked: Callable[[], bool]) -> list[str]:
        found = self._client.run(asked)
        return sorted(worker for worker, said in found.items() if said is answer)


@contextmanager
def dask_cluster(address: str, seconds: float = CONNECT_SECONDS) -> Iterator[DaskCluster]:
    """The cluster whose scheduler listens at `address`, as `tcp://10.0.0.5:8786`.

    It is given so many seconds to answer, and as many to have a worker.

    Raises `TickwellError` where Dask is not installed, nobody answers, or workers are not as this
    process is.
    """
    try:
        from distributed import Client
    except ImportError:
        raise TickwellError(
            f"--scheduler needs a package that is not installed: pip install '{EXTRA}'"
        ) from None
    try:
        client = Client(address, timeout=seconds, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise TickwellError(
            f"--scheduler {address}: nobody answers there ({one_line(error)}); it is the address "
            "of a Dask scheduler, as tcp://10.0.0.5:8786"
        ) from None
    with client:
        found = DaskCluster(client, address)
        found.check_installed(seconds)
        yield found


def _take(progress: dict[int, Any], event: tuple[Any, Mapping[str, Any]]) -> None:
    _, told = event
    progress[told["number"]] = pickle.loads(told["progress"])


def _failure(future: Future) -> str | None:
    """Why a part was not done, None where it was."""
    if future.status != "finished":
        return (
            f"a worker of the cluster was lost, or its part ended with {future.status}: "
            f"{_said(future)}; run the same command again"
        )
    result = future.result()
    return result.why if isinstance(result, Failed) else None


def _said(future: Future) -> str:
    error = future.exception() if future.status == "error" else None
    return "no worker has it" if error is None else f"{type(error).__name__}: {one_line(error)}"


# -- what is sent to workers


def _seen_by(mark: str) -> Callable[[], bool]:
    def is_seen() -> bool:  # sent as it is: a worker may lack this module
        from pathlib import Path

        return Path(mark).exists()

    return is_seen


def _has_version(wanted: str) -> Callable[[], bool]:
    def is_there() -> bool:
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("tickwell") == wanted
        except PackageNotFoundError:
            return False

    return is_there


def _done(job: Job, number: int, part: Any, topic: str, ended: str) -> Any:
    """Do a part on a worker."""
    from distributed import Event, get_worker

    from tickwell.cli import message_for

    worker, stop = get_worker(), Event(ended)

    def tell(progress: Any) -> None:
        worker.log_event(topic, {"number": number, "progress": pickle.dumps(progress)})

    if stop.is_set():
        return None
    try:
        return job(part, tell, stop)
    except Exception as error:
        message = message_for(error)
        if message is None:  # a defect: Dask sends its traceback
            raise
        return Failed(message)
