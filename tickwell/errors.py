"""Errors that the command line shows to the user; each message says what to do."""

from __future__ import annotations

import pwd
from collections.abc import Sequence


class TickwellError(Exception):
    """An error whose message is shown without a traceback."""


class SettingError(TickwellError):
    """A setting cannot be used."""

    def __init__(self, variable: str, value: str, what: str) -> None:
        super().__init__(f"{variable}={value}: {what}")


class AlreadyRunning(TickwellError):
    """Another `up` works on the same directory."""

    def __init__(self, data: object, pid: int | None) -> None:
        process = f" (pid {pid})" if pid else ""
        super().__init__(
            f"tickwell already runs on {data}{process}: see it with "
            f"`tickwell status --data {data}`, end it with `tickwell down --data {data}`"
        )


class NotRunning(TickwellError):
    """There is no `up` on the directory; `others` are directories that have one."""

    def __init__(self, data: object, others: Sequence[object] = ()) -> None:
        meant = (
            f", or set TICKWELL_DATA to what is meant: {', '.join(map(str, others))}"
            if others
            else ""
        )
        super().__init__(
            f"nothing runs on {data}: start it with `tickwell up --data {data}`{meant}"
        )


class NotOurs(TickwellError):
    """Another user made what is in the directory."""

    def __init__(self, data: object, owner: int) -> None:
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"uid {owner}"
        super().__init__(
            f"{data} was set up by {name}: run tickwell as {name}, or name another directory with "
            "--data"
        )


class DiskFull(TickwellError):
    """There is no room for the services' data."""

    def __init__(self, data: object, why: str) -> None:
        super().__init__(
            f"{why}: make room on the disk under {data}, or name a directory on another one with "
            "--data"
        )


class Stopped(Exception):
    """A signal came before everything had started; this is not shown as an error."""


class ServiceFailed(TickwellError):
    """A service or a process did not come up."""

    def __init__(self, name: str, why: str, log: object) -> None:
        super().__init__(f"{name} did not start: {why}; its log is {log}")


def one_line(error: object) -> str:
    """The text of an error, which may come in several lines, as libpq's does."""
    return " ".join(str(error).split())
