"""Files as tables: what their bytes say, delimiters, headers, compressions, damage."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.produce.errors import BadFile, BadRow, Mistaken, NothingToSend
from pipelines.produce.file_names import expand
from pipelines.produce.options import FileOptions
from pipelines.produce.table_files import open_table
from tests.support.tick_files import TS, checked, csv_of, messages_of, parquet_of, sent

TEXT = f"symbol,price,ts\nA,1,{TS}\nB,2.50,{TS}\n".encode()
TICKS = [
    (b"A", f'{{"symbol":"A","price":1,"ts":{TS}}}'.encode()),
    (b"B", f'{{"symbol":"B","price":2.50,"ts":{TS}}}'.encode()),
]


def zipped(content: bytes, *more: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("t.csv", *more):
            archive.writestr(name, content)
    return written.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        b"\xef\xbb\xbf" + TEXT,
        TEXT.replace(b"\n", b"\r\n"),
        TEXT.replace(b"\n", b"\r\n\r\n"),
        TEXT.rstrip(),
        TEXT.replace(b",", b"\t"),
        TEXT.replace(b",", b";"),
        TEXT.replace(b",", b"|"),
        TEXT.replace(b"symbol", b'"symbol"').replace(b"A", b'"A"'),
        gzip.compress(TEXT),
        gzip.compress(TEXT[:30]) + gzip.compress(TEXT[30:]),
        pa.compress(TEXT, "zstd", asbytes=True),
        bz2.compress(TEXT),
        zipped(TEXT),
    ],
    ids=[
        "plain",
        "a byte order mark",
        "CR LF",
        "blank lines",
        "no line end at the end",
        "tabs",
        "semicolons",
        "bars",
        "quotes",
        "gzip",
        "two gzip members",
        "zstd",
        "bzip2",
        "zip",
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "download"])
def test_what_a_file_is_is_seen_from_its_bytes(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert messages_of(tmp_path / name) == TICKS


def test_parquet_is_seen_from_its_bytes(tmp_path: Path) -> None:
    file = parquet_of(tmp_path, symbol=["A"], price=[1], ts=[TS]).rename(tmp_path / "download")
    assert messages_of(file) == TICKS[:1]


@pytest.mark.parametrize(
    ("lines", "cells"),
    [
        # a decimal comma beside a delimiter that is none
        (["symbol;price;ts;note", f"A;1;{TS};1,5", f"A;2;{TS};2,5"], 2),
        # commas inside quotes
        (["symbol\tprice\tts\tnote", f'A\t1\t{TS}\t"x, y, z"'], 1),
        (['"a, b",symbol,price,ts', f'"1, 2",A,1,{TS}'], 1),
        # line ends inside quotes
        (["note,symbol,price,ts", f'"x\ny",A,1,{TS}'], 1),
        (['"no\nte",symbol,price,ts', f"x,A,1,{TS}"], 1),
    ],
)
def test_delimiters_are_found_out(tmp_path: Path, lines: list[str], cells: int) -> None:
    assert len(sent(csv_of(tmp_path, *lines))) == cells


def test_a_delimiter_that_is_given(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol:price:ts", f"A:1:{TS}")
    assert len(sent(file, delimiter=":")) == 1
    with pytest.raises(Mistaken, match=r"has 1 columns, and 3 names.*delimiter.*--delimiter sets"):
        checked(file, names=("a", "b", "c"))


@pytest.mark.parametrize("header", [",price,ts", "price,ts"])
def test_a_first_column_without_a_name(tmp_path: Path, header: str) -> None:
    """As pandas writes an index, and as R writes the names of rows."""
    file = csv_of(tmp_path, header, f"A,1,{TS}", f"B,2.50,{TS}")
    assert messages_of(file, columns={"symbol": "#1"}) == TICKS
    with pytest.raises(Exception, match=r"no column symbol; it has #1, price, ts"):
        checked(file)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b" \n\n", "it is empty"),
        (b"\x1f\x8b\x08broken", ""),
        (b"symbol,pri\xff\xfe,ts\nA", "not text in UTF-8; convert it, as by iconv -f WINDOWS-1252"),
        (TEXT.decode().encode("utf-16"), "not text in UTF-8; convert it, as by iconv -f UTF-16"),
        (b"PAR1broken", ""),
        (b"PK\x03\x04broken", ""),
        (b"\x28\xb5\x2f\xfdbroken", ""),
        (TEXT + b"\xe9,1,1\n", "not text in UTF-8; convert it"),
        (TEXT + b"A," + b"1" * 1_000_000 + b",1\n" + TEXT * 20_000, "more than 262,144 bytes"),
        (TEXT + b'A,"1\n' + b"A,1,2\n" * 400_000, "or a quote is never closed"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFile, match=f"{name} cannot be read.*{what}"):
        checked(tmp_path / name)


def test_files_of_other_formats_are_named(tmp_path: Path) -> None:
    """What writes them is the library that people use; each is told what to do."""
    file = tmp_path / "t"
    table = pa.table({"symbol": ["A"], "price": [1.0], "ts": [TS]})
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(BadFile, match="it is an Arrow or Feather file: write it as Parquet"):
        checked(file)
    file.write_bytes(lzma.compress(TEXT))
    with pytest.raises(BadFile, match="it is compressed by xz: unpack it"):
        checked(file)
    file.write_bytes(pa.compress(TEXT, "lz4", asbytes=True))
    with pytest.raises(BadFile, match="it is compressed by lz4: unpack it"):
        checked(file)
    for name in ("t.tar", "t.tar.gz"):
        with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as archive:
            archive.add(csv_of(tmp_path, TEXT.decode()), "t.csv")
        with pytest.raises(BadFile, match=f"{name} cannot be read: it is an archive of tar"):
            checked(tmp_path / name)
    dbn = b"DBN\x01" + bytes(500) + b"\xff" * 100
    for content in (dbn, pa.compress(dbn, "zstd", asbytes=True)):
        file.write_bytes(content)
        with pytest.raises(BadFile, match="it is Databento's binary format: write it as CSV"):
            checked(file)


def test_an_archive_of_macos(tmp_path: Path) -> None:
    """Which holds a second file beside each."""
    (tmp_path / "t.zip").write_bytes(zipped(TEXT, "__MACOSX/._t.csv"))
    assert messages_of(tmp_path / "t.zip") == TICKS


def test_an_archive_that_needs_a_password(tmp_path: Path) -> None:
    content = bytearray(zipped(TEXT))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    (tmp_path / "t.zip").write_bytes(content)
    with pytest.raises(BadFile, match=r"password required.*; unpack it"):
        checked(tmp_path / "t.zip")


def test_a_spreadsheet(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(zipped(TEXT, "xl/workbook.xml"))
    with pytest.raises(BadFile, match="it is a spreadsheet of Excel: save it as CSV"):
        checked(tmp_path / "t.xlsx")


def test_a_delimiter_at_the_end_of_each_row(tmp_path: Path) -> None:
    """The names keep their columns; pandas takes the first column for an index."""
    lines = [f"{TS + i},{TS + i + 7},{i},{100 + i},A," for i in range(3)]
    file = csv_of(tmp_path, "ts,received,price,size,symbol", *lines)
    found = [(int(tick["ts"]), int(tick["price"]), int(tick["size"])) for tick in sent(file)]
    assert found == [(TS + i, i, 100 + i) for i in range(3)]


def test_an_archive_of_several_files(tmp_path: Path) -> None:
    (tmp_path / "t.zip").write_bytes(zipped(TEXT, "u.csv"))
    with pytest.raises(Mistaken, match="holds 2 files: unpack it"):
        checked(tmp_path / "t.zip")


def test_a_file_that_ends_too_early(tmp_path: Path) -> None:
    lines = ["symbol,price,ts", *(f"A,{i},{TS}" for i in range(200_000))]
    whole = gzip.compress("\n".join(lines).encode())
    (tmp_path / "t.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadFile, match=r"cannot be read.*: Truncated"):
        checked(tmp_path / "t.csv.gz")


@pytest.mark.parametrize(
    ("line", "what"),
    [("A,1", "row 2: has 2 cells and the table 3"), ("A,1,2,3", "row 2: has 4 cells")],
)
def test_a_line_that_is_no_row(tmp_path: Path, line: str, what: str) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", f"A,1,{TS}", line, f"B,2.50,{TS}")
    with pytest.raises(BadRow, match=what):
        checked(file)


@pytest.mark.parametrize("names", [["symbol,price,ts"], []])
@pytest.mark.parametrize("line", ["A,1", "A,1,2,3"])
def test_a_first_line_that_is_no_row(tmp_path: Path, names: list[str], line: str) -> None:
    """Most rows say how many columns there are, so it is one bad row and not another table."""
    file = csv_of(tmp_path, *names, line, f"A,1,{TS}", f"B,2.50,{TS}")
    options: dict[str, Any] = {} if names else {"names": ["symbol", "price", "ts"]}
    with pytest.raises(BadRow, match=rf"row 1: has {len(line.split(','))} cells and the table 3"):
        checked(file, **options)
    assert checked(file, rejects=tmp_path / "r.csv", **options)[1].good == 2


def test_rows_are_counted_the_same_behind_lines_that_are_none(tmp_path: Path) -> None:
    """In any block of the reader, and with empty lines between."""
    rows = 60_000  # more than one block
    broken = {7, 30_000, 45_000, 60_000}
    lines = [
        ("A,1" if row in broken else f"A,{'x' if row % 20_000 == 5 else 1},{TS},{'-' * 20}")
        for row in range(1, rows + 1)
    ]
    lines.insert(3, "")
    file = csv_of(tmp_path, "symbol,price,ts,note", *lines)
    _, found = checked(file, rejects=tmp_path / "r.csv")
    told = [line for line in (tmp_path / "r.csv").read_text().splitlines() if "row " in line]
    named = {int(line.split("row ")[1].split(":")[0].split(",")[0]) for line in told}
    assert named == broken | {5, 20_005, 40_005}
    assert found.good == rows - 7


def test_a_file_that_is_named_in_several_ways_is_sent_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "z.csv"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link.csv").symlink_to("z.csv")
    found = expand(["z.csv", "z*.csv", "./z.csv", ".", "link.csv"])
    assert [str(file) for file in found] == ["z.csv", "a.csv"]


def test_what_cannot_be_read_twice_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    for argument in (str(pipe), "/dev/null"):
        with pytest.raises(Mistaken, match=r"is no regular file; produce reads it twice: write it"):
            expand([argument])


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv.gz", "c.parquet", ".hidden.csv", "readme.md", "d.tsv.zst"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "inside").mkdir()

    def names(*arguments: str) -> list[str]:
        return [file.name for file in expand([str(tmp_path / argument) for argument in arguments])]

    assert names(".") == ["a.csv.gz", "b.csv", "c.parquet", "d.tsv.zst"]
    assert names("*.csv*", "readme.md") == ["a.csv.gz", "b.csv", "readme.md"]
    for missing in ("x.csv", "*.json"):
        with pytest.raises(Mistaken, match="there is no such file"):
            names(missing)
    with pytest.raises(Mistaken, match="holds no file whose name ends in"):
        names("inside")


def test_several_files_are_sent_one_after_the_other(tmp_path: Path) -> None:
    first = csv_of(tmp_path, "symbol,price,ts", f"A,1,{TS}", name="a.csv")
    second = csv_of(tmp_path, "ts;symbol;price", f"{TS};B;2.50", name="b.csv")
    assert messages_of(first, second) == TICKS


def test_no_rows_at_all(tmp_path: Path) -> None:
    none: list[Any] = []
    empty = parquet_of(tmp_path, symbol=pa.array(none, pa.string()), price=none, ts=none)
    for file in (csv_of(tmp_path, "symbol,price,ts"), empty):
        with pytest.raises(NothingToSend, match="no row is a tick"):
            checked(file)


def test_progress_where_the_file_is_closed_in_that_moment(tmp_path: Path) -> None:
    """The thread that reads ahead may close it during the call: its number is another's then."""
    file = csv_of(tmp_path, "symbol,price,ts", f"A,1,{TS}")
    table = open_table(file, FileOptions())
    (number,) = (fd for fd in open_files() if os.path.samestat(os.fstat(fd), file.stat()))
    reading, writing = os.pipe()
    os.dup2(reading, number)
    assert table.done() == 1
    table.close()
    for fd in (reading, writing):
        os.close(fd)


def open_files() -> list[int]:
    """The numbers of the open files of this process."""
    found = []
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # the folder itself was open while it was listed
            os.fstat(int(name))
            found.append(int(name))
    return found
