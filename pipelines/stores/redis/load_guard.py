"""The error where a partition has another writer, and how a load finds that out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipelines.errors import StoreUnavailable


class AnotherWriter(StoreUnavailable):
    """Redis names another writer of the partition than this sink, or an earlier script of it."""

    def __init__(self) -> None:
        super().__init__(
            "Redis: another worker has written the partition, or what was sent before is lost"
        )


class LoadGuard(NamedTuple):
    """What is read with states, on the same connection, and checked before they are believed.

    `check` is called with the values of `keys`, and raises `AnotherWriter`.
    """

    keys: Sequence[str]
    check: Callable[[Sequence[bytes | None]], None]
