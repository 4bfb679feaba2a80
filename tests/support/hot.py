"""Hot as a server uses it, beside the product: leases, promotions, and what is believed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from registry.formats.hot import (
    HOME,
    HOME_LAYOUT,
    LEASE_MS,
    TOKEN_BYTES,
    lease_key,
    mark_key,
    row_key,
)
from tests.support.stored import stored_row

PROMOTE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[3], ARGV[1] .. ARGV[3])
redis.call('DEL', KEYS[2])
return 1
"""


class Promotion(NamedTuple):
    """A row that was read from warm under a lease, on its way to hot."""

    source: str
    entity: str
    mark: str
    token: bytes
    nonce: bytes
    row: bytes


class Reader:
    """A server that reads entities of one partition; `hot` and `warm` are clients."""

    def __init__(self, hot: Any, warm: Any, topic_id: bytes, partition: int = 0) -> None:
        self.hot = hot
        self.warm = warm
        self.mark = mark_key(topic_id, partition)

    def believed(self, source: str, entity: str) -> bytes | None:
        """The row that hot would answer with, None for a miss."""
        return self.all_believed(source, [entity])[0]

    def all_believed(self, source: str, entities: Sequence[str]) -> list[bytes | None]:
        """The same of several entities, which may be at home in any partition."""
        rows = [row_key(source, entity) for entity in entities]
        *found, mark = self.hot.mget([*rows, self.mark])
        marks = {self.mark: mark}
        for key in {_mark_of(row) for row in found if row} - {self.mark}:
            marks[key] = self.hot.get(key)
        return [
            row[TOKEN_BYTES:] if row and row[:TOKEN_BYTES] == marks[_mark_of(row)] else None
            for row in found
        ]

    def begin(self, source: str, entity: str) -> Promotion | None:
        """Take a lease and read warm; None without a live mark, a free lease and a row."""
        token = self.hot.get(self.mark)
        nonce = secrets.token_bytes(8)
        if token is None:
            return None
        if not self.hot.set(lease_key(source, entity), nonce, nx=True, px=LEASE_MS):
            return None
        row = stored_row(self.warm, source, entity)
        if row is None:
            return None
        return Promotion(source, entity, self.mark, token, nonce, row)

    def finish(self, promotion: Promotion | None) -> bool:
        """Put the row into hot if that is still allowed; returns whether it was."""
        if promotion is None or _mark_of(promotion.token + promotion.row) != promotion.mark:
            return False
        keys = [
            promotion.mark,
            lease_key(promotion.source, promotion.entity),
            row_key(promotion.source, promotion.entity),
        ]
        values = (promotion.token, promotion.nonce, promotion.row)
        return bool(self.hot.eval(PROMOTE, len(keys), *keys, *values))

    def promote(self, source: str, entity: str) -> bool:
        """Both, one after the other."""
        return self.finish(self.begin(source, entity))


def _mark_of(row: bytes) -> str:
    """The key of the mark that a row in hot (token and row) needs."""
    return mark_key(*HOME_LAYOUT.struct.unpack(row[HOME]))
