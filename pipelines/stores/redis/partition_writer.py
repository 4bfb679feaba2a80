"""Who may write a partition to a single server, and the error where it is another one."""

from __future__ import annotations

from typing import NamedTuple

from pipelines.errors import StoreUnavailable


class AnotherWriter(StoreUnavailable):
    """Redis names another writer of the partition than this sink, or an earlier script of it."""

    def __init__(self) -> None:
        super().__init__(
            "Redis: another worker has written the partition, or what was sent before is lost"
        )


class PartitionWriter(NamedTuple):
    """The sink that may write a partition, by the key that names it, and its token.

    The key's value is the token, a colon and the number of the sink's next script.
    """

    key: str
    token: str

    def check(self, stored: bytes | None) -> None:
        """Raises `AnotherWriter` where the key's value names another one."""
        if (stored or b"").partition(b":")[0] != self.token.encode():
            raise AnotherWriter
