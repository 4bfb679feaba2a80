"""What logs say of a request, and a log that no client can fill.

A record has its `fields` beside its message (`logging`'s `extra`), and so has an exception that
ends a request; `tickwell.json_logs` writes them. None of them is secret, and all are bounded: a
client decides what stands in them, and how often.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Scope

from serving.api.request_ids import REQUEST_ID

KEY_NAME = "tickwell.key"
"""Where the scope of a request has the name of its API key."""

FIELDS = "fields"
"""The attribute of a record, or of an exception, with the fields that a log has beside the text."""

TEXT_CHARACTERS = 200
"""Characters of a method or a path that are logged."""


def described(scope: Scope) -> dict[str, str]:
    """The fields that say which request it is."""
    client = scope.get("client")
    fields = {
        "method": scope.get("method"),
        "path": scope.get("path"),
        "client": client[0] if client else None,
        "request_id": scope.get(REQUEST_ID),
        "key": scope.get(KEY_NAME),
    }
    return {name: str(value)[:TEXT_CHARACTERS] for name, value in fields.items() if value}


def describe(error: Exception, scope: Scope) -> None:
    """Let the log of an exception, wherever it is written, say which request it has ended."""
    setattr(error, FIELDS, described(scope))


class BoundedLog:
    """Warnings of which clients can cause any number: `burst` at once, then one in `seconds`.

    The next line that is written has the number of those that were left out.
    """

    def __init__(
        self,
        logger: logging.Logger,
        burst: int = 20,
        seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._burst = burst
        self._seconds = seconds
        self._clock = clock
        self._left = float(burst)
        self._looked = clock()
        self._left_out = 0

    def warning(self, message: str, fields: Mapping[str, Any]) -> None:
        """Write a line, or count it."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._looked) / self._seconds)
        self._looked = now
        if self._left < 1:
            self._left_out += 1
            return
        self._left -= 1
        more = {"left_out": self._left_out} if self._left_out else {}
        self._left_out = 0
        self._logger.warning(message, extra={FIELDS: {**fields, **more}})
