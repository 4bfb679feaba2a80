"""What an `up` leaves in its data directory for `status`, `env` and `down`."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import msgspec
import psutil
from msgspec import Struct
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from tickwell.errors import AlreadyRunning, NotOurs, NotRunning, TickwellError
from tickwell.kafka_settings import SECURITY
from tickwell.registry_settings import ACCESS, REGISTRY

ADDRESSES = tuple(
    f"TICKWELL_{name.upper()}"
    for name in ("kafka", *SECURITY, REGISTRY, *ACCESS, "redis", "redis_hot", "postgres", "url")
)
"""The variables of an environment that say where a stack is, and how it is reached."""

PROBE_SECONDS = 0.5
"""The time in seconds to wait for the lock, longer than a check of it holds it."""


class ProcessView(Struct, frozen=True):
    """A process as it is shown. `state` is starting, running, restarting or stopped.

    `created` is when the operating system says that it began, in seconds since 1970: with the pid
    it identifies the process, as another one may get that pid later. `directory` is where it keeps
    its data when that is outside the data directory. `last_error` is what the one before it wrote
    last before it ended.
    """

    name: str
    pid: int | None
    address: str
    state: str
    restarts: int = 0
    detail: str = ""
    created: float = 0.0
    directory: str = ""
    last_error: str = ""


class State(Struct, frozen=True):
    """An `up`: its own pid, `phase` (starting, running, stopping), processes, addresses."""

    pid: int
    phase: str
    processes: tuple[ProcessView, ...]
    environment: dict[str, str]


def kept_elsewhere(processes: Iterable[ProcessView]) -> list[str]:
    """A line for each process that keeps its data outside the data directory."""
    return [
        f"{process.name} keeps its data in {process.directory}"
        for process in processes
        if process.directory
    ]


def state_file(data: Path) -> Path:
    return data / "run" / "state.json"


def write(data: Path, state: State) -> None:
    """Replace the state; only its owner may read it, because it holds passwords."""
    file = state_file(data)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".new")
    descriptor = _opened(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(msgspec.json.encode(state))
    unfinished.replace(file)


def read(data: Path) -> State:
    """The state of a running `up`. Raises `NotRunning`.

    What an earlier one left is not taken for its state: it has none before its first service.
    """
    pid = running_pid(data)
    if pid is None:
        raise NotRunning(data)
    state = last(data)
    return state if state is not None and state.pid == pid else State(pid, "starting", (), {})


def addresses(data: Path) -> dict[str, str]:
    """The variables that say where a running `up` has everything.

    Raises `NotRunning`, `NotOurs`, and `TickwellError` until it has started its services.
    """
    environment = read(data).environment
    if not environment:
        raise TickwellError(f"tickwell on {data} is still starting: try again when it is ready")
    _check_trusted(state_file(data), data)
    return {name: value for name, value in environment.items() if name in ADDRESSES}


def _check_trusted(file: Path, data: Path) -> None:
    """Raises `NotOurs` where a user other than the caller and root wrote a file of an `up`.

    What connects to the addresses in it would offer this user's passwords to them.
    """
    owner = file.lstat().st_uid
    if owner not in (0, os.geteuid()) and owner != _owner_of_new_files(file.parent):
        raise NotOurs(data, owner)


def seen_running() -> list[Path]:
    """The data directories of every `up` of this machine that this user can see."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or ()
        if "up" not in command or not any(Path(part).name == "tickwell" for part in command):
            continue
        with suppress(psutil.Error, OSError):
            opened = (Path(file.path) for file in process.open_files())
            found |= {file.parents[1] for file in opened if file.match("run/lock")}
    return sorted(data for data in found if is_running(data))


def last(data: Path) -> State | None:
    """What the last `up` left, running or not."""
    try:
        with open(_opened(state_file(data), os.O_RDONLY | os.O_NONBLOCK), "rb") as handle:
            return msgspec.json.decode(handle.read(), type=State)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def check_owner(data: Path) -> None:
    """Raises `NotOurs` where another user's `up` made the services' files.

    Ours would leave files among them that the other's may not write to.
    """
    for directory in (data / "run", data / "services"):
        try:
            # of a link as well, because its owner decides where root would write
            owners = directory.lstat().st_uid, directory.stat().st_uid
        except FileNotFoundError:
            continue
        ours = _owner_of_new_files(directory)
        for owner in owners:
            if owner != ours:
                raise NotOurs(data, owner)


def _owner_of_new_files(directory: Path) -> int:
    """The user that a file of the caller's gets; some file systems give all files to the same."""
    try:
        with TemporaryFile(dir=directory) as made:
            return os.fstat(made.fileno()).st_uid
    except PermissionError:
        return os.geteuid()


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the directory. Raises `AlreadyRunning`. The lock goes with the process that holds it."""
    file = _lock_file(data)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(_opened(file, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+") as handle:
        try:
            _lock(handle)
        except BlockingIOError:
            raise AlreadyRunning(data, running_pid(data)) from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


@retry(
    retry=retry_if_exception_type(BlockingIOError),
    stop=stop_after_delay(PROBE_SECONDS),
    wait=wait_fixed(PROBE_SECONDS / 20),
    reraise=True,
)
def _lock(handle: IO[str]) -> None:
    """Lock it, waiting as long as a check of the lock may hold it."""
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_running(data: Path) -> bool:
    """Whether a process holds the directory."""
    return running_pid(data) is not None


def running_pid(data: Path) -> int | None:
    """The process that holds the directory; None when none does, or it has yet to write its pid."""
    try:
        with open(_opened(_lock_file(data), os.O_RDONLY | os.O_NONBLOCK)) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(handle.read())
    except (FileNotFoundError, ValueError):
        return None
    return None


def is_held_by(data: Path, pid: int) -> bool:
    """Whether a process has the lock of the directory open, as far as the caller may see that."""
    with suppress(psutil.Error, OSError):
        lock = _lock_file(data).stat()
        for file in psutil.Process(pid).open_files():
            with suppress(OSError):
                if os.path.samestat(os.stat(file.path), lock):
                    return True
    return False


def _lock_file(data: Path) -> Path:
    return data / "run" / "lock"


def _opened(file: Path, flags: int) -> int:
    """A descriptor of a file of an `up`, which is opened through no symbolic link."""
    return os.open(file, flags | os.O_NOFOLLOW, 0o600 if file.name != "lock" else 0o666)
