"""Local times to UTC, with the hour that a clock shows twice in autumn and the one it skips.

A time of the doubled hour is told apart by order: within an entity it is the first hour until its
times step back by more than `skew`, and the second hour from there on. Where they never step back,
or more than once, nothing tells which of the two it is, and the row is named. (Postgres and DuckDB
take the second one without a word; Java, JavaScript and pandas' objects the first.) A time of the
skipped hour does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from pipelines.produce.errors import Mistaken
from pipelines.produce.event_times import UNKNOWN
from pipelines.runtime.array_types import Int64s
from pipelines.ticks.event_time import EPOCH

HOUR = 3600 * 10**9
DAY = 24 * HOUR


class Unclear(NamedTuple):
    """A time of the doubled hour of which nothing tells which of the two it is."""

    row: int
    text: str


@dataclass(slots=True)
class _Doubled:
    """The doubled hour that an entity is in: its day, its newest local time, its first row."""

    day: int
    newest: int
    row: int
    text: str
    steps_back: int = 0


class LocalTimes:
    """Turns the local times of one file into UTC, in the order of its rows."""

    def __init__(self, tz: str | None, skew_ns: int) -> None:
        self._tz = tz
        self._skew = skew_ns
        self._zone = None if tz is None else zone_of(tz)
        self._offsets = lru_cache(maxsize=100_000)(self._of_hour)
        self._doubled: dict[str, _Doubled] = {}
        self._unclear: list[Unclear] = []
        self.any_doubled = False
        """Whether the order of rows has told any time."""

    def to_utc(
        self, nanoseconds: Int64s, local: Any, entity: Any, row: Any, wrong: dict[int, str]
    ) -> None:
        """Make local times UTC, in place; those that do not exist become `UNKNOWN` and `wrong`.

        `entity` and `row` give the entity, and the number in the file, of a row by its index.
        """
        if self._zone is None:
            return
        indexes = np.flatnonzero(local & (nanoseconds != UNKNOWN))
        if not len(indexes):
            return
        given = nanoseconds[indexes]
        hours, inverse = np.unique(given // HOUR, return_inverse=True)
        offsets = np.array(
            [UNKNOWN if (one := self._offsets(hour)) is None else one for hour in hours.tolist()]
        )[inverse]
        plain = offsets != UNKNOWN
        nanoseconds[indexes[plain]] = given[plain] - offsets[plain]
        for index in indexes[~plain].tolist():
            self._judge(index, nanoseconds, entity, row, wrong)

    def finish(self) -> list[Unclear]:
        """The rows whose hour stayed unclear to the end of the file."""
        for known in self._doubled.values():
            self._close(known)
        self._doubled.clear()
        return self._unclear

    def _close(self, known: _Doubled) -> None:
        if known.steps_back != 1:
            self._unclear.append(Unclear(known.row, known.text))

    def _of_hour(self, hour: int) -> int | None:
        """The offset of all times of a local hour, nanoseconds; None where it is not one."""
        found = {
            _offset(second * 10**9, self._zone, fold)
            for second in (hour * 3600, hour * 3600 + 1800, hour * 3600 + 3599)
            for fold in (0, 1)
        }
        return found.pop() if len(found) == 1 else None

    def _judge(
        self, index: int, nanoseconds: Int64s, entity: Any, row: Any, wrong: dict[int, str]
    ) -> None:
        """One time of an hour in which clocks change."""
        given = int(nanoseconds[index])
        first, second = (_offset(given, self._zone, fold) for fold in (0, 1))
        if first < second:
            nanoseconds[index] = UNKNOWN
            wrong[index] = (
                f"{_shown(given)} does not exist in {self._tz}: clocks skip that hour; give times "
                "in UTC or with an offset"
            )
            return
        if first == second:
            nanoseconds[index] = given - first
            return
        name, day = entity(index), given // DAY
        known = self._doubled.get(name)
        if known is None or known.day != day:
            if known is not None:
                self._close(known)
            known = self._doubled[name] = _Doubled(
                day,
                given,
                row(index),
                f"{_shown(given)} happens twice in {self._tz}, and the order of the rows does not "
                "tell which one it is; give times in UTC or with an offset",
            )
        self.any_doubled = True
        known.steps_back += given < known.newest - self._skew
        known.newest = given
        nanoseconds[index] = given - (second if known.steps_back else first)


def zone_of(tz: str) -> ZoneInfo:
    """A time zone by its name. Raises `Mistaken`."""
    try:
        return ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Mistaken(
            f"--tz {tz}: there is no such time zone; write it as Europe/Berlin or UTC"
        ) from None


def _offset(local: int, zone: ZoneInfo | None, fold: int) -> int:
    """The offset from UTC of a local time, both in nanoseconds."""
    moment = (EPOCH + timedelta(microseconds=local // 1000)).replace(tzinfo=zone, fold=fold)
    offset = moment.utcoffset()
    assert offset is not None, "a ZoneInfo knows its offsets"
    return (offset // timedelta(microseconds=1)) * 1000


def _shown(local: int) -> str:
    moment: datetime = EPOCH + timedelta(microseconds=local // 1000)
    return moment.astimezone(UTC).isoformat(" ", "seconds")[:19]
