"""Formats of times: what they read, what they refuse, and formats that cannot be meant."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.produce.errors import BadRow, Mistaken
from pipelines.produce.time_formats import TimeFormat
from tests.support.tick_files import checked, csv_of

MOMENTS = st.datetimes(datetime(1971, 1, 2), datetime(2199, 12, 30))


@pytest.mark.parametrize(
    "form",
    [
        "%Y%m%d%H%M%S%f",
        "%Y%m%d %H%M%S.%f",
        "%Y%j %H:%M:%S.%f",
        "%d.%m.%Y %I:%M:%S.%f %p",
        "%b %d %Y %H:%M:%S.%f EST",
        "%A, %d %B %Y, %X.%f",
    ],
)
@given(moment=MOMENTS)
def test_what_python_writes_is_read_again(form: str, moment: datetime) -> None:
    exact = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    found = TimeFormat(form).read(moment.strftime(form))
    assert isinstance(found, tuple)
    nanoseconds, local = found
    assert local
    assert nanoseconds % 10**9 == moment.microsecond * 1000
    assert nanoseconds // 10**9 == int(exact // 1)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("20200102 500", "%Y%m%d %H%M%S"),
        ("2020111", "%Y%m%d"),
        ("202001020930", "%Y%m%d%H%M%S"),
        ("20200102093000", "%Y%m%d%H%M%S%f"),
        ("200102 930", "%y%m%d %H%M"),
    ],
)
def test_a_text_that_lacks_digits_is_not_guessed(tmp_path: Path, text: str, form: str) -> None:
    """Python reads all of these: 500 as 05:00:00, 2020111 as November 1."""
    datetime.strptime(text, form)
    file = csv_of(tmp_path, "symbol,price,ts", f"A,1,{text}")
    with pytest.raises(BadRow, match=f"'{text}' is not written as '{form}'"):
        checked(file, ts_format=form)


@pytest.mark.parametrize("text", ["1/4/1999 9:05", "01/04/1999 09:05", "1/04/1999  9:05"])
def test_numbers_between_separators_need_no_zeros(text: str) -> None:
    exact = int(datetime(1999, 1, 4, 9, 5, tzinfo=UTC).timestamp()) * 10**9
    assert TimeFormat("%m/%d/%Y %H:%M").read(text) == (exact, True)


@pytest.mark.parametrize(
    ("form", "what"),
    [
        ("%Y-%m-%d %H:%M %p", "%p is of the hour of twelve"),
        ("%Y-%m-%d %I:%M", "%I is the hour of twelve and needs %p"),
        ("%Y-%M-%d", "%M is minutes, and there is no hour; months are %m"),
        ("%Y-%d %H:%M", "%d is the day of a month, and there is no month"),
        ("%Y-%m-%d %H:%S", "%S is seconds, and there are no minutes"),
        ("%Y-%m-%d %H:%M %Z", r"a name tells no zone \(%Z\).*--tz"),
    ],
)
def test_a_format_that_cannot_be_meant(form: str, what: str) -> None:
    """Python takes them, and leaves out or mistakes what the texts say."""
    with pytest.raises(Mistaken, match=rf"^--ts-format '{form}': {what}"):
        TimeFormat(form)
