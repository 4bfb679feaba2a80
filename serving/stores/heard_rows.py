"""Rows that are heard where they arrive: nobody waits for them, and no task is needed.

Only of what is regular: where a store has to be asked again, or another one, its rows are waited
for as ever (`row_store.NamedRows`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from serving.stores.row_batch import Hearer, Values
from serving.stores.row_store import Packed, Tier

Wanted = Sequence[tuple[str, Sequence[bytes]]]
"""Sources, and names of rows of each."""


def not_counted() -> None:
    """Of a store that does not count what it was asked for."""


class Heard(NamedTuple):
    """The rows of each source, of which none is unavailable, and the tier that all are from."""

    rows: Sequence[Sequence[Packed]]
    tier: Tier
    on_answer: Callable[[], None] = not_counted
    """Counts them as asked for, once they are answered: else they are asked for again."""


Judge = Callable[[Values], Heard | None]
"""Makes rows of what a hearer was told, once; None where they must be waited for."""


class HeardRows(Protocol):
    """Reads rows by names (`NamedRows.name`) for who hears them."""

    def ask(self, wanted: Wanted, hearer: Hearer) -> Judge | None:
        """Have rows read, and say how what `hearer` is told is judged; it is told later.

        None where nothing is asked, since rows must be waited for now.
        """
        ...
