"""How many entities the sums of a request may add up: it is checked before any of them is read."""

from __future__ import annotations

from collections.abc import Sequence

from serving.errors import TooLarge
from serving.stores.row_store import MemberSet, Unavailable


def check_members(
    counts: Sequence[int | Unavailable], wanted: Sequence[MemberSet], most: int
) -> None:
    """Raises `TooLarge` where the sets that could be counted have more than `most` members."""
    counted = [n for n, count in enumerate(counts) if not isinstance(count, Unavailable)]
    known = {n: int(counts[n]) for n in counted}  # type: ignore[arg-type]
    total = sum(known.values())
    if total > most:
        largest = max(known, key=known.__getitem__)
        raise TooLarge(
            f"there are {total} members to add up, {known[largest]} of them in "
            f"{wanted[largest].message_key}; a request may add up {most}: ask for less"
        )
