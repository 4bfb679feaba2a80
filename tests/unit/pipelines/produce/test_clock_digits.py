"""Times of day in digits: 093000, 0930, and what is left of them without the zeros at the front."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.produce.errors import BadRow, Mistaken
from pipelines.produce.table_files import BLOCK_BYTES
from tests.support.tick_files import csv_of, times_of

DAY = datetime(2020, 1, 2, tzinfo=UTC)
CLOCK = {"ts": "Date+Time"}
A = {"symbol": "A"}


def file_of(directory: Path, clocks: list[str]) -> Path:
    return csv_of(directory, "Date,Time,price", *(f"20200102,{clock},1" for clock in clocks))


@pytest.mark.parametrize("form", ["%H%M%S", "%H%M"])
@pytest.mark.parametrize("zeros", [True, False], ids=["zeros", "without zeros"])
@given(seconds=st.lists(st.integers(0, 86_399), min_size=1, max_size=20))
def test_digits_are_the_time_that_python_wrote(
    tmp_path_factory: pytest.TempPathFactory, form: str, zeros: bool, seconds: list[int]
) -> None:
    """The last row, of the afternoon, shows how many digits there are."""
    written = [(DAY + timedelta(seconds=second)).strftime(form) for second in [*seconds, 50_000]]
    exact = [
        int(datetime.strptime(f"20200102 {clock} +0000", f"%Y%m%d {form} %z").timestamp()) * 10**9
        for clock in written
    ]
    clocks = written if zeros else [str(int(clock)) for clock in written]
    file = file_of(tmp_path_factory.mktemp("x"), clocks)
    assert times_of(file, columns=CLOCK, constants=A, ts_unit="yyyymmdd") == exact


def test_seconds_that_show_late_are_refused_and_a_format_says_what_they_are(
    tmp_path: Path,
) -> None:
    early = ["500"] * (2 * BLOCK_BYTES // len("20200102,500,1\n"))
    file = file_of(tmp_path, [*early, "93000"])
    with pytest.raises(Mistaken, match=r"column Date\+Time holds 93000.*--ts-format '%Y%m%d %H%M"):
        times_of(file, columns=CLOCK, constants=A, ts_unit="yyyymmdd")
    given: dict[str, Any] = {"ts_format": "%Y%m%d %H%M%S", "ts_unit": "yyyymmdd"}
    found = times_of(file, columns=CLOCK, constants=A, **given)
    first, last = (DAY + timedelta(minutes=minutes) for minutes in (5, 9 * 60 + 30))
    assert found[0] == int(first.timestamp()) * 10**9
    assert found[-1] == int(last.timestamp()) * 10**9


@pytest.mark.parametrize("clock", ["0930", "1234567"])
def test_other_numbers_of_digits_are_no_time(tmp_path: Path, clock: str) -> None:
    """What begins with a zero has lost none, so 0930 is not 00:09:30."""
    file = file_of(tmp_path, ["093000", clock])
    with pytest.raises(BadRow, match=rf"row 2, column Date\+Time: '2020-01-02 {clock}' is neither"):
        times_of(file, columns=CLOCK, constants=A, ts_unit="yyyymmdd")


def test_hours_alone_are_no_time(tmp_path: Path) -> None:
    with pytest.raises(BadRow, match="row 1"):
        times_of(file_of(tmp_path, ["9", "10"]), columns=CLOCK, constants=A, ts_unit="yyyymmdd")
