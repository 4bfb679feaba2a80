"""One command over a link that is no read of rows: a script."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from hiredis import ReplyError

from serving.stores.row_store import UNAVAILABLE

Answer = asyncio.Future[Any]
"""What a command is answered, `UNAVAILABLE` where that is an error, or does not come."""


class Call(NamedTuple):
    """A command as it is sent, and the future that is told its answer."""

    command: bytes
    found: Answer

    def packed(self) -> bytes:
        return self.command

    def take(self, answer: Any) -> bool:
        self._tell(UNAVAILABLE if isinstance(answer, ReplyError) else answer)
        return True

    def fail(self) -> None:
        self._tell(UNAVAILABLE)

    def _tell(self, answer: Any) -> None:
        if not self.found.done():  # it is when whoever waited was cancelled
            self.found.set_result(answer)
