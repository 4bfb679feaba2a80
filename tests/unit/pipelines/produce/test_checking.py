"""The check before anything is sent: rejects, limits, and the order of rows."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from pipelines.produce.checking import CheckOptions, Rejects, TickFiles, check, sendable
from pipelines.produce.errors import BadFile, BadRow, Mistaken, NothingToSend, OutOfOrder
from pipelines.produce.options import FileOptions
from pipelines.produce.order import Order
from pipelines.produce.verdict import check_order
from registry.definitions import Condition
from tests.support.tick_files import PRICE, TS, checked, csv_of, messages_of, sent

SECOND = 10**9


def order(live: dict[str, int] | None = None) -> Order:
    """The order of price ticks; `live` has the newest times in nanoseconds."""
    return Order(PRICE.skew_ns, None if live is None else lambda names: live)


def verdict(directory: Path, *lines: str, live: dict[str, int] | None = None) -> Order:
    """Check files of these rows in order; raises what is said of it."""
    looked = order(live)
    files, _ = checked(csv_of(directory, "symbol,ts,price", *lines), order=looked)
    check_order(looked, files, sorted_later=False)
    return looked


def test_good_rows_are_sent_and_the_others_written(tmp_path: Path) -> None:
    lines = [
        f"A,1,{TS},x",
        f"A,,{TS},y",
        f'"B, C",two,{TS},"z ""q"""',
        "A,1,5,é",
        f"A,2,{TS},",
        f"A,1e999,{TS},",
    ]
    file = csv_of(tmp_path, "symbol,price,ts,note", *lines)
    rejects = tmp_path / "rejects.csv"
    files, found = checked(file, rejects=rejects)
    assert (found.good, found.problems) == (2, 4)
    (rows,) = sendable(files, found)
    assert rows.numbers.tolist() == [1, 5]
    header, *written = csv.reader(rejects.read_text().splitlines())
    assert header == ["symbol", "price", "ts", "note", "problem"]
    assert [row[:4] for row in written] == [
        ["A", "", str(TS), "y"],
        ["B, C", "two", str(TS), 'z "q"'],
        ["A", "1", "5", "é"],
        ["A", "1e999", str(TS), ""],
    ]
    assert written[1][4] == "row 3, column price: 'two' is not a number"
    # corrected, the file of rejects is a file like the first one
    text = rejects.read_text().replace(",,", ",3,").replace("two", "4").replace(",5,", f",{TS},")
    text = text.replace("1e999", "5")
    corrected = csv_of(tmp_path, *text.splitlines(), name="corrected.csv")
    assert [tick["price"] for tick in sent(corrected)] == [3, 4, 1, 5]


def test_rejected_lines_keep_their_cells_whatever_their_number(tmp_path: Path) -> None:
    lines = [f"A;1;{TS}", f'B;"2;\n5";{TS};more', "C;3"]
    file = csv_of(tmp_path, "symbol;price;ts", *lines)
    rejects = tmp_path / "rejects.csv"
    _, found = checked(file, rejects=rejects)
    assert (found.good, found.problems) == (1, 2)
    header, many, few = csv.reader(io.StringIO(rejects.read_text(), newline=""))
    assert header == ["symbol", "price", "ts", "problem"]
    assert many[:4] == ["B", "2;\n5", str(TS), "more"]
    assert few[:3] == ["C", "3", ""]
    assert ("row 2: has 4 cells" in many[4], "row 3: has 2 cells" in few[3]) == (True, True)


KINDS = pa.table(
    {
        "symbol": pa.array(["A", "A"]).dictionary_encode(),
        "price": pa.array([189.23, float("inf")], pa.float32()),
        "size": pa.array([Decimal("10.50"), Decimal("10.50")]),
        "ts": pa.array([TS * 10**6 + 1] * 2).cast(pa.timestamp("ns")),
        "seq": pa.array([2.0**53, 2.0**53]),
        "note": pa.array([[1], None]),
    }
)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "UTC"])
def test_rejects_of_parquet_are_the_same_ticks_once_they_are_corrected(
    tmp_path: Path, zone: str | None
) -> None:
    """Also where there is no pandas, without which Arrow makes no objects of nanoseconds."""
    times = KINDS["ts"].cast(pa.timestamp("ns", zone))
    parquet = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(KINDS.set_column(3, "ts", times), parquet)
    rejects = tmp_path / "r.csv"
    program = (
        "import sys; from pathlib import Path; sys.modules['pandas'] = None; "
        "from tests.support.tick_files import checked; "
        "checked(Path(sys.argv[1]), rejects=Path(sys.argv[2]), tz=sys.argv[3] or None)"
    )
    given = [str(parquet), str(rejects), "" if zone else "America/New_York"]
    subprocess.run([sys.executable, "-c", program, *given], check=True)
    rejects.write_text(rejects.read_text().replace(",inf,", f",{np.float32(189.23):.17g},"))
    (corrected,) = sent(rejects, tz=given[2] or None)
    first, *_ = sent(parquet, tz=given[2] or None, limit=1)
    assert corrected == first


def test_rejects_that_are_not_kept_leave_nothing(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", f"A,x,{TS}", f"A,1,{TS}")
    rejects = Rejects(tmp_path / "rejects.csv")
    files = TickFiles([file], PRICE, FileOptions(keep_rows=True))
    check(files, CheckOptions(None, rejects), lambda _: None, Event())
    assert not rejects.file.exists()
    rejects.close()
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    with pytest.raises(Mistaken, match=r"--reject .*none/r\.csv: No such file or directory"):
        checked(file, rejects=tmp_path / "none" / "r.csv")


@pytest.mark.parametrize("rows", [[], ["A,,5"], ["A,x,5"]])
def test_files_without_a_tick_are_an_error(tmp_path: Path, rows: list[str]) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", *rows)
    with pytest.raises(NothingToSend, match=r"^no row is a tick: .*; nothing was sent$"):
        checked(file, rejects=tmp_path / "r.csv", skip_empty=True)
    assert not (tmp_path / "r.csv").exists()


def test_rejects_of_a_file_without_names(tmp_path: Path) -> None:
    columns = {"symbol": "#1", "price": "#2", "ts": "#3"}
    file = csv_of(tmp_path, f"A,1,{TS}", f"A,x,{TS}")
    rejects = tmp_path / "rejects.csv"
    checked(file, rejects=rejects, header=False, columns=columns)
    (row,) = csv.reader(rejects.read_text().splitlines())
    assert row == ["A", "x", str(TS), "row 2, column #2: 'x' is not a number"]


def test_nothing_is_written_where_all_rows_are_good(tmp_path: Path) -> None:
    checked(csv_of(tmp_path, "symbol,price,ts", f"A,1,{TS}"), rejects=tmp_path / "rejects.csv")
    assert not (tmp_path / "rejects.csv").exists()


def test_a_file_of_rejects_replaces_nothing(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", f"A,x,{TS}")
    with pytest.raises(Mistaken, match="it exists already; name a new file"):
        checked(file, rejects=file)
    assert "A,x" in file.read_text()


def test_files_of_different_columns_need_rejects_of_their_own(tmp_path: Path) -> None:
    first = csv_of(tmp_path, "symbol,price,ts", f"A,x,{TS}", name="a.csv")
    second = csv_of(tmp_path, "symbol,ts,price", f"A,{TS},x", name="b.csv")
    with pytest.raises(Mistaken, match="different columns"):
        checked(first, second, rejects=tmp_path / "rejects.csv")


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limit_counts_good_rows_and_looks_no_further(tmp_path: Path, limit: int) -> None:
    lines = [f"A,{price},{TS}" for price in ("x", "1", "2", "y", "3")]
    file = csv_of(tmp_path, "symbol,price,ts", *lines)
    _, found = checked(file, rejects=tmp_path / "r.csv", limit=limit)
    assert (found.good, found.problems) == (limit, 1 if limit < 3 else 2)
    good = csv_of(tmp_path, "symbol,price,ts", *lines[1:3], lines[0], name="good.csv")
    if limit < 3:
        assert len(messages_of(good, limit=limit)) == limit
    else:
        with pytest.raises(BadRow, match="row 3"):
            messages_of(good, limit=limit)


@pytest.mark.parametrize("limit", [1, 5, 9])
def test_a_limit_is_filled_by_the_first_good_rows(tmp_path: Path, limit: int) -> None:
    """Also where only the decoder knows that rows before them are no ticks."""
    lines = [f"A,{'1e999' if row % 2 else row},{TS + row}" for row in range(1, 30)]
    file = csv_of(tmp_path, "symbol,price,ts", *lines)
    looked = order()
    files, found = checked(file, order=looked, rejects=tmp_path / "r.csv", limit=limit)
    (rows,) = sendable(files, found)
    assert rows.numbers.tolist() == list(range(2, 2 * limit + 1, 2))
    assert (found.good, found.problems, looked.rows) == (limit, limit, limit)


def test_a_row_that_workers_would_pass_over_is_told(tmp_path: Path) -> None:
    source = structs.replace(PRICE, where=(Condition("symbol", ("A",)),))
    file = csv_of(tmp_path, "symbol,price,ts", f"A,1,{TS}", f"B,2,{TS}", f"A,3,{TS}")
    with pytest.raises(BadRow, match=r"row 2: workers would pass over it"):
        checked(file, source=source)
    _, found = checked(file, source=source, rejects=tmp_path / "r.csv")
    assert (found.good, found.problems) == (2, 1)


UNCLEAR = ("01:30", "02:30", "02:45", "03:30")


def test_rejects_take_no_row_of_an_unclear_hour(tmp_path: Path) -> None:
    lines = [f"A,1,2024-10-27 {clock}" for clock in UNCLEAR]
    file = csv_of(tmp_path, "symbol,price,ts", *lines)
    options: dict[str, Any] = {"rejects": tmp_path / "r.csv", "tz": "Europe/Berlin"}
    with pytest.raises(BadRow, match=r"row 2, column ts: 2024-10-27 02:30.* happens twice"):
        checked(file, **options)
    with pytest.raises(BadRow, match=r"row 2, column ts: 2024-10-27 02:30.* happens twice"):
        checked(file, limit=2, **options)
    assert checked(file, limit=1, **options)[1].good == 1
    lines.insert(3, "A,1,2024-10-27 02:10")  # rows behind the limit tell which hour it is
    assert checked(csv_of(tmp_path, "symbol,price,ts", *lines), limit=2, **options)[1].good == 2


def test_a_file_that_changes_between_check_and_sending(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", f"A,1,{TS}")
    files, found = checked(file)
    csv_of(tmp_path, "symbol,price,ts", f"A,1,{TS}", f"A,2,{TS}")
    with pytest.raises(BadFile, match="was changed while it was checked"):
        list(sendable(files, found))


def test_progress_is_a_part_of_all_bytes(tmp_path: Path) -> None:
    lines = [f"A,1,{TS}"] * 300_000
    small = csv_of(tmp_path, "symbol,price,ts", *lines[:10], name="a.csv")
    large = csv_of(tmp_path, "symbol,price,ts", *lines, name="b.csv")
    checked_files, _ = checked(small, large)
    files = TickFiles([small, large], PRICE, checked_files.options)
    parts = [files.done() for _ in files.blocks()]
    assert all(a <= b for a, b in pairwise(parts))
    assert parts[1] < 0.5 < parts[-1] <= 1
    assert files.done() == 1


def test_progress_where_the_last_rows_of_a_file_were_read(tmp_path: Path) -> None:
    """Rows of an unclear hour follow once the file is closed."""
    lines = [f"A,1,2024-10-27 {clock}" for clock in UNCLEAR]
    file = csv_of(tmp_path, "symbol,price,ts", *lines)
    files = TickFiles([file], PRICE, FileOptions(tz="Europe/Berlin"))
    parts = [(files.done(), len(rows.unclear)) for _, rows in files.blocks()]
    assert parts == [(1, 0), (1, 1)]


times = st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 12_000)), min_size=1, max_size=60)


@given(times, st.dictionaries(st.sampled_from("ABC"), st.integers(0, 12_000)))
def test_late_rows_are_those_that_a_worker_would_call_late(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, int]],
    live: dict[str, int],
) -> None:
    """Compared with the rule, row by row: more than skew behind the newest row of the symbol."""
    looked = order({name: (TS + ms) * 10**6 for name, ms in live.items()})
    lines = (f"{symbol},{TS + ms},1" for symbol, ms in rows)
    file = csv_of(tmp_path_factory.mktemp("x"), "symbol,ts,price", *lines)
    files, _ = checked(file, order=looked)
    newest: dict[str, int] = defaultdict(lambda: -(10**9))
    late, older = [], []
    for row, (symbol, ms) in enumerate(rows, 1):
        if ms < newest[symbol] - 1000:
            late.append(row)
        newest[symbol] = max(newest[symbol], ms)
        if symbol in live and ms < live[symbol] - 1000:
            older.append(row)
    assert looked.late == len(late)
    assert looked.older_than_live[0] == len(older)
    if late:
        assert files.named(looked.first_late[0]).endswith(f"t.csv, row {late[0]}")
    if older:
        assert files.named(looked.older_than_live[1]).endswith(f"t.csv, row {older[0]}")


def test_steps_back_are_told_with_count_and_first_place(tmp_path: Path) -> None:
    rows = [0, 1, 2, 60, 61, 62, 3, 4, 63, 64]
    lines = [f"{symbol},{TS + 1000 * s},1" for s in rows for symbol in "AB"]
    message = (
        r"4 rows of 20 would be rejected as late.*more than 1 s \(skew\).*t\.csv, row 13, 59 s "
        r"behind\. Nothing was sent\. --sort.*--allow-late"
    )
    with pytest.raises(OutOfOrder, match=message):
        verdict(tmp_path, *lines)


def test_steps_back_within_skew_are_no_matter(tmp_path: Path) -> None:
    assert verdict(tmp_path, *(f"A,{TS + ms},1" for ms in (0, 1000, 0, 1500, 500))).late == 0


def test_a_file_that_is_newest_first(tmp_path: Path) -> None:
    lines = [f"{symbol},{TS - 60_000 * i},1" for symbol in "AB" for i in range(50)]
    with pytest.raises(OutOfOrder, match=r"newest first: 98 of 100 .*row 2.*--sort"):
        verdict(tmp_path, *lines)


def test_one_row_far_ahead(tmp_path: Path) -> None:
    lines = [f"A,{TS + 60_000 * i},1" for i in range(100)]
    lines[20] = "A,1793000000000,1"
    message = r"t\.csv, row 21 is far ahead \(2026-10-.*79 rows after it .* row 22.*--sort"
    with pytest.raises(OutOfOrder, match=message):
        verdict(tmp_path, *lines)


def test_two_halves_in_the_wrong_order_are_no_row_far_ahead(tmp_path: Path) -> None:
    minutes = [*range(50, 100), *range(50)]
    with pytest.raises(OutOfOrder, match=r"50 rows of 100 would be .*step back.*row 51"):
        verdict(tmp_path, *(f"A,{TS + 60_000 * minute},1" for minute in minutes))


def test_rows_older_than_live_are_named(tmp_path: Path) -> None:
    live = {"A": (TS + 10_000) * 10**6}
    lines = [f"{symbol},{TS + 4000 * i},1" for i in range(4) for symbol in "AB"]
    message = r"3 rows of 8 are older than what live has.*row 1, 10 s older.*--allow-late"
    with pytest.raises(OutOfOrder, match=message):
        verdict(tmp_path, *lines, live=live)


def test_many_symbols_keep_their_own_order(tmp_path: Path) -> None:
    lines = [f"S{i},{TS + i % 7},1" for i in range(5_000)]
    looked = verdict(tmp_path, *lines, *lines)
    assert (looked.entities, looked.rows) == (5_000, 10_000)


def test_newest_first_does_not_tell_the_doubled_hour(tmp_path: Path) -> None:
    clocks = ["2023-10-29 02:40:00", "2023-10-29 02:20:00"]
    clocks += [f"2023-10-28 {hour:02}:00:00" for hour in range(23, 0, -1)]
    looked = order()
    file = csv_of(tmp_path, "symbol,ts,price", *(f"A,{clock},1" for clock in clocks))
    files, _ = checked(file, order=looked, tz="Europe/Berlin")
    with pytest.raises(Mistaken, match="newest first, so their order does not tell the doubled"):
        check_order(looked, files, sorted_later=True)
