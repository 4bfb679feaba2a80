"""The live marks of hot: whose rows are believed.

Which partitions there are is learnt from rows, which have their origin. The marks of all that are
known are read together, ahead of the rows of the same turn of the event loop, unless that was done
less than `MARKS_SECONDS` ago. A token is of one partition and never comes back: a row is believed
when its token is any of the live ones.

A row that is read up to `MARKS_SECONDS` after its mark is at least as new as it was when the mark
was read. So what is believed is at most that much older than the mark itself allows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from registry.formats.hot import HOME_LAYOUT, mark_key
from serving.stores.row_batch import KEYS, Values
from serving.stores.row_link import RowLink, bulk
from serving.stores.row_store import Unavailable

logger = logging.getLogger(__name__)

MARKS_SECONDS = 0.05
"""Seconds for which marks that were read are believed; it is added to what a mark allows."""

MARKS_A_SECOND = 20_000
"""Marks that are read in a second, at most: those of many partitions are read less often."""

MOST_SECONDS = 0.25
"""Seconds for which marks are believed however many there are."""

MOST_MARKS = 4_096
"""Partitions that are known; one more, and those that are read are learnt anew."""


class Marks:
    """The marks of the partitions that are known, read over the link to hot."""

    def __init__(self, link: RowLink, seconds: float = MARKS_SECONDS) -> None:
        """With `seconds` of 0 marks are read with every read of rows."""
        self._link = link
        self._seconds = self._pause = seconds
        self._keys: dict[bytes, bytes] = {}
        self._asked_at = 0.0
        self._is_due = True
        self.tokens: Mapping[bytes, bytes] = {}
        """The token of each partition (`registry.formats.hot.HOME`) whose mark was there."""
        self.live: frozenset[bytes] = frozenset()
        """The tokens."""

    def knows(self, home: bytes) -> bool:
        """Whether the mark of a partition is read."""
        return home in self._keys

    def homes(self) -> frozenset[bytes]:
        """All partitions whose marks are read."""
        return frozenset(self._keys)

    def learn(self, home: bytes) -> None:
        """Have the mark of a partition read too, from the next time on."""
        if home in self._keys or len(home) != HOME_LAYOUT.size:
            return
        if len(self._keys) >= MOST_MARKS:
            logger.warning("rows are of more than %d partitions: all are learnt anew", MOST_MARKS)
            self._keys.clear()
        self._keys[home] = bulk(mark_key(*HOME_LAYOUT.struct.unpack(home)))
        self._is_due = True

    def ask(self, now: float) -> None:
        """Have the marks read in this turn, unless they were a moment ago; `now` is the loop's."""
        if not self._is_due and now - self._asked_at < self._pause:
            return
        self._asked_at, self._is_due = now, False
        if self._seconds:
            self._pause = max(self._seconds, min(MOST_SECONDS, len(self._keys) / MARKS_A_SECOND))
        if self._keys:
            wanted = [(KEYS, list(self._keys.values()))]
            heard = _Heard(partial(self._take, list(self._keys)))
            self._link.read_into(wanted, heard, is_first=True)

    def _take(self, homes: list[bytes], answer: Values) -> None:
        marks = [] if isinstance(answer, Unavailable) else answer[0]
        self.tokens = {
            home: mark for home, mark in zip(homes, marks, strict=False) if isinstance(mark, bytes)
        }
        self.live = frozenset(self.tokens.values())
        if not marks or any(isinstance(mark, Unavailable) for mark in marks):
            self._is_due = True


class _Heard(NamedTuple):
    """Hears marks at once: rows that are read with them are believed only under these."""

    take: Callable[[Values], None]

    def done(self) -> bool:
        return False

    def set_result(self, answer: Values) -> None:
        self.take(answer)
