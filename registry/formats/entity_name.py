"""How an entity is named, in every store: its key fields joined with the ASCII unit separator.

No key may hold that character.
"""

from __future__ import annotations

from collections.abc import Sequence

SEPARATOR = "\x1f"


def entity_id(key_values: Sequence[str]) -> str:
    """The entity's name: its key field values in the source's order, `("P1", "AAPL")`."""
    return SEPARATOR.join(key_values)


def key_values(entity: str) -> tuple[str, ...]:
    """The key field values of an entity, the inverse of `entity_id`."""
    return tuple(entity.split(SEPARATOR))
