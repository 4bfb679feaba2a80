"""What can be wrong with definitions, the registry's tables and stored rows."""

from __future__ import annotations


class RegistryError(Exception):
    """Any error of the registry."""


class CorruptRow(RegistryError):
    """The stored bytes are not a packed row."""

    def __init__(self, head: bytes) -> None:
        super().__init__(
            f"not a packed row, it starts with {head.hex()}: something else writes to these keys, "
            "or a newer version does; rebuild the key from Postgres"
        )
