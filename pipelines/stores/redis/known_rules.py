"""The rules that a Redis knows, and the offset before which it may have stored."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.stores.redis import scripts
from pipelines.stores.redis.connection import WarmRedis
from registry.formats.redis_keys import (
    FILLED_MARK,
    begun_key,
    filled_key,
    rules_key,
    rules_pairs,
    rules_value,
    watermark_key,
)

RulesBegin = tuple[int, int]
"""The id of recorded rules, and the first offset of a partition that they decide."""


class KnownRules:
    """The rules of each partition in one Redis. Methods raise `StoreUnavailable`."""

    def __init__(self, redis: WarmRedis) -> None:
        self._redis = redis

    def stored_to(self, topic_id: bytes, partition: int) -> int | None:
        """The offset before which entities may have been stored; None where nothing was.

        They may be ahead of the watermark, by a run that was begun.
        """
        found = [self._redis.get(key(topic_id, partition)) for key in (watermark_key, begun_key)]
        offsets = [int(offset) for offset in found if offset is not None]
        if not offsets and self._redis.get(filled_key(topic_id, partition)) == FILLED_MARK:
            return 0  # a worker has found the partition empty, and reads it from its beginning
        return max(offsets, default=None)

    def used_unrecorded(
        self, topic_id: bytes, partition: int, recorded: Sequence[RulesBegin]
    ) -> int | None:
        """The first offset that may be stored by rules that are not among `recorded`, or None.

        Rules of which Redis was told and that were not recorded after all have decided nothing.
        """
        known = rules_pairs(self._redis.get(rules_key(topic_id, partition)))
        end = self.stored_to(topic_id, partition) or 0
        used = [begin for rules, begin in known if (rules, begin) not in recorded and begin < end]
        return min(used, default=None)

    def tell(
        self, topic_id: bytes, partition: int, rules: Sequence[RulesBegin], begins: int | None
    ) -> bool:
        """Have Redis know exactly `rules`, of which the last ones may begin now, at `begins`.

        Returns False, with nothing changed, where more than that is stored already.
        """
        past = self._redis.run(
            scripts.BEGIN_RULES,
            [key(topic_id, partition) for key in (watermark_key, begun_key, rules_key)],
            [rules_value(rules), "" if begins is None else begins],
        )
        return past is None
