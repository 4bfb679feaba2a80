"""A process that is started, watched and stopped: what to run, and its life."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import NamedTuple

import psutil

from tickwell.errors import ServiceFailed, Stopped

POLL_SECONDS = 0.05
STOP_SECONDS = 10.0
"""Seconds after which a process that was asked to stop is killed, unless it may take longer."""

LOG_BYTES = 65_536
"""Bytes at the end of a log in which its last error is looked for."""

LEVEL = " ERROR "
"""What comes before the logger's name and the text in a line that tells of an error."""

ERROR_CHARACTERS = 500
"""Characters of an error that are kept."""

NEVER = Event()
"""An event that is never set, for a caller that need not stop early."""


class Account(NamedTuple):
    """The account that a process runs as: a user and a group by number, and no other groups."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run. `check` raises OSError until the process answers at `address`.

    Without an `account` it runs as its parent does. `directory` is where it keeps its data when
    that is outside the data directory.
    """

    name: str
    argv: Sequence[str]
    log: Path
    address: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None
    directory: Path | None = None
    check: Callable[[], None] = lambda: None
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = STOP_SECONDS
    start_seconds: float = 60.0


class Process:
    """One running `Spec`. It has a session of its own: Ctrl-C reaches only its parent."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.created = 0.0
        self._log_begin = 0
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._popen is None else self._popen.pid

    def start(self) -> int:
        """Start it; returns its pid."""
        spec, account = self.spec, self.spec.account
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        with spec.log.open("ab") as log:
            self._log_begin = log.tell()
            self._popen = subprocess.Popen(
                list(spec.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **spec.env},
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                cwd="/" if account else None,
                start_new_session=True,
            )
        self.created = psutil.Process(self._popen.pid).create_time()
        return self._popen.pid

    def wait_ready(self, stopped: Event = NEVER) -> None:
        """Wait until it answers.

        Raises `ServiceFailed` when it ends first or never does, `Stopped` when `stopped` is set.
        """
        deadline = time.monotonic() + self.spec.start_seconds
        why = "no answer"
        while time.monotonic() < deadline:
            code = self.exit_code()
            if code is not None:
                raise ServiceFailed(self.spec.name, f"it ended with {code}", self.spec.log)
            try:
                self.spec.check()
            except OSError as error:
                why = str(error)
                if stopped.wait(POLL_SECONDS):
                    raise Stopped from None
            else:
                return
        self.stop()
        raise ServiceFailed(
            self.spec.name, f"{why} in {self.spec.start_seconds:g} s", self.spec.log
        )

    def exit_code(self) -> int | None:
        """Its exit code, None while it runs or before it was started."""
        return None if self._popen is None else self._popen.poll()

    def last_error(self) -> str:
        """The last error in its log since it was started, "" for none.

        Of a log without levels it is the last line, unless a signal has ended it.
        """
        try:
            with self.spec.log.open("rb") as log:
                log.seek(max(self._log_begin, log.seek(0, os.SEEK_END) - LOG_BYTES))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        errors = [line.partition(LEVEL)[2] for line in lines if LEVEL in line]
        if not errors and (self.exit_code() or 0) > 0:
            errors = [line for line in lines if line.strip()]
        return errors[-1].strip()[:ERROR_CHARACTERS] if errors else ""

    def stop(self) -> None:
        """Ask it to stop, and end it when it does not in time."""
        if self._popen is None or self._popen.poll() is not None:
            return
        self._popen.send_signal(self.spec.stop_signal)
        try:
            self._popen.wait(self.spec.stop_seconds)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
