"""When an answer is of no use any more: what the client says, or the default of the server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, NamedTuple, Protocol, TypeVar

from serving.errors import DeadlineMissed, InvalidRequest
from serving.stores.waiting import was_waited_for

HEADER = b"x-deadline-ms"
MOST_MS = 60_000
"""Milliseconds that a client may give. Stores take a few seconds at most, whatever it waits."""

SHOWN_CHARACTERS = 40

SLOT_SECONDS = 0.005
"""Seconds between two moments at which deadlines end."""

T = TypeVar("T")


class Deadline(NamedTuple):
    """A moment, in seconds of the event loop's clock, and how many milliseconds before it began.

    It is None where a client waits for as long as it takes.
    """

    at: float | None
    ms: int

    def missed(self, ended: BaseException | None) -> DeadlineMissed:
        """What a client is told; `ended` ended the wait, and knows for which store it was."""
        store = was_waited_for(ended)
        if store is None:
            return DeadlineMissed(
                f"no answer within {self.ms} ms: ask for less, or with a later X-Deadline-Ms",
                deadline_ms=self.ms,
            )
        return DeadlineMissed(
            f"no answer within {self.ms} ms, as {store} had not answered by then: ask again, or "
            "with a later X-Deadline-Ms",
            deadline_ms=self.ms,
            waited_for=store,
        )


NO_DEADLINE = Deadline(None, 0)


class Expiring(Protocol):
    """What is told when its deadline has come."""

    def expire(self) -> None:
        """The deadline has come."""
        ...


class Waiting:
    """A task that is cancelled at its deadline, unless it has ended its wait before."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.is_late = False

    def expire(self) -> None:
        """The deadline has come."""
        self.is_late = True
        self.task.cancel()


class Timers:
    """Cancels tasks at their deadlines: one timer of the loop for all of the same moment, about.

    `asyncio.timeout` makes one for each, which costs more than all else that a deadline does.
    """

    def __init__(self) -> None:
        self._slots: dict[int, set[Expiring]] = {}

    async def within(self, deadline: Deadline, answer: Awaitable[T]) -> T:
        """The answer. Raises `DeadlineMissed`, at the deadline or up to `SLOT_SECONDS` later."""
        assert deadline.at is not None
        task = asyncio.current_task()
        assert task is not None
        waiting = Waiting(task)
        slot = self.add(deadline.at, waiting)
        try:
            return await answer
        except asyncio.CancelledError as ended:
            if waiting.is_late and not task.uncancel():  # else somebody else cancels it, too
                raise deadline.missed(ended) from None
            raise
        finally:
            slot.discard(waiting)

    def add(self, moment: float, waiting: Expiring) -> set[Expiring]:
        """Have somebody told at a moment, by the loop's clock, unless taken out of the set."""
        slot = self._slot(math.ceil(moment / SLOT_SECONDS))
        slot.add(waiting)
        return slot

    def _slot(self, number: int) -> set[Expiring]:
        """Who waits until a moment."""
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            asyncio.get_running_loop().call_at(number * SLOT_SECONDS, self._expire, number)
        return slot

    def _expire(self, number: int) -> None:
        for waiting in list(self._slots.pop(number)):  # who is told takes itself out
            waiting.expire()


class Deadlines:
    """Finds the deadlines of requests."""

    def __init__(self, default_ms: int) -> None:
        self._default_ms = default_ms
        self.timers = Timers()

    def ms_of(self, value: bytes | None) -> int:
        """The milliseconds that a request with this header may take. Raises `InvalidRequest`."""
        if value is None:
            return self._default_ms
        if value.isdigit() and len(value) <= 5 and 0 < int(value) <= MOST_MS:
            return int(value)
        shown = value[:SHOWN_CHARACTERS].decode("ascii", "backslashreplace")
        raise InvalidRequest(
            f"X-Deadline-Ms is {shown!r}: give the milliseconds in which an answer is of "
            f"use, a whole number from 1 to {MOST_MS}"
        )
