"""Rows on their way to the topic."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from pipelines.produce.checking import sendable
from pipelines.produce.errors import BadFile
from pipelines.produce.sending import in_order_of_time
from pipelines.produce.tick_rows import TickRows
from tests.support.tick_files import TS, checked, csv_of

FULL_DISK = """
import resource, sys, tempfile
from pathlib import Path
from threading import Event
from pipelines.produce.checking import sendable
from pipelines.produce.errors import CannotSort
from pipelines.produce.sending import in_order_of_time
from tests.support.tick_files import checked

found = checked(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
try:
    for _ in in_order_of_time(sendable(*found), Event()):
        pass
except CannotSort as error:
    print(error)
"""


def test_what_is_wrong_with_a_file_is_told_where_it_is_sorted_too(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", f"A,1,{TS}")
    found = checked(file)

    def rows() -> Iterator[TickRows]:
        yield from sendable(*found)
        raise BadFile(file, 1, "it was changed")

    with pytest.raises(BadFile, match="it was changed"):
        list(in_order_of_time(rows(), Event()))


def test_a_directory_without_room_to_sort_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    note = "x" * 40
    lines = (f"{note}{i % 1000},{i}.5,{TS + i * 7919 % 100_000}" for i in range(1_500_000))
    file = csv_of(tmp_path, "symbol,price,ts", *lines)
    command = [sys.executable, "-c", FULL_DISK, str(file)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ended.stdout.startswith(f"--sort in {tmp_path}: ")
    assert ended.stdout.endswith("name another directory by TMPDIR\n")
    assert not list(tmp_path.glob("tickwell-sort-*"))
