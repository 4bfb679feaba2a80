"""For which store a request waits, where its time ends."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def waited_for(store: str, answer: Awaitable[T]) -> T:
    """An answer of a store; where the wait for it is ended, the error that ends it is noted that.

    So a request pays nothing for it unless it is late.
    """
    try:
        return await answer
    except CancelledError as error:
        error.add_note(store)
        raise


def was_waited_for(ended: BaseException | None) -> str | None:
    """The store that is noted in an error; of several, one around the other, the innermost."""
    stores = getattr(ended, "__notes__", None)
    return stores[0] if stores else None
