"""Times of day in digits, as 093000 or 0930, also without the zeros that spreadsheets drop.

500 is 05:00 where times have hours and minutes, and 00:05:00 where they have seconds. The longest
time tells which, so a file that shows it after shorter ones is refused.
"""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from pipelines.produce.arrow_arrays import booleans, mask
from pipelines.produce.errors import Mistaken

MINUTES, SECONDS = 4, 6
"""Digits of a time with hours and minutes, and of one with seconds."""

DIGITS = r"^[0-9]{1,6}$"
SHORTENED = r"^(0|[1-9][0-9]*)$"
"""Digits that may have lost zeros at the front."""


class ClockDigits:
    """The times of day of one file. `digits` is how many they have where a format says so, else 0.

    Raises `Mistaken` where the digits of earlier rows were taken for others than they are.
    """

    def __init__(self, digits: int) -> None:
        self._digits = digits
        self._given = digits > 0

    def padded(self, clocks: Any, name: str) -> Any:
        """Cells of digits with the zeros that they have lost; others as they are."""
        digits = mask(pc.match_substring_regex(clocks, DIGITS))
        if not digits.any():
            return clocks
        if not self._given:
            self._look(pc.filter(clocks, booleans(digits)), name)
        if not self._digits:
            return clocks
        lost = digits & mask(pc.match_substring_regex(clocks, SHORTENED))
        return pc.if_else(booleans(lost), pc.utf8_lpad(clocks, self._digits, "0"), clocks)

    def timed(self, clocks: Any, name: str) -> Any:
        """Cells of digits as 09:30 or 09:30:00; others as they are."""
        padded = self.padded(clocks, name)
        for digits, form, instead in (
            (MINUTES, r"^([0-9]{2})([0-9]{2})$", r"\1:\2"),
            (SECONDS, r"^([0-9]{2})([0-9]{2})([0-9]{2})$", r"\1:\2:\3"),
        ):
            if digits == self._digits:
                padded = pc.replace_substring_regex(padded, form, instead)
        return padded

    def _look(self, clocks: Any, name: str) -> None:
        """See how many digits the times have."""
        longest = pc.filter(clocks, pc.match_substring_regex(clocks, r"^.{5,6}$"))
        if len(longest):
            if self._digits == MINUTES:
                raise Mistaken(
                    f"column {name} holds {longest[0].as_py()}, a time of day with seconds, behind "
                    "shorter ones that were taken for hours and minutes: say how all are written, "
                    "as by --ts-format '%Y%m%d %H%M%S'"
                )
            self._digits = SECONDS
        elif not self._digits and pc.any(pc.match_substring_regex(clocks, r"^.{3,4}$")).as_py():
            self._digits = MINUTES
