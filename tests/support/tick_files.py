"""Files of ticks, written for a test, and what `produce` makes of them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from pipelines.produce.checking import Checked, CheckOptions, Rejects, TickFiles, check, sendable
from pipelines.produce.options import FileOptions
from pipelines.produce.order import Order
from pipelines.ticks.columns import Ticks
from pipelines.ticks.decoder import Decoder
from registry.definitions import Source
from registry.features_file import read
from tests.support.logs import run_of

PRICE, VOLUME, POSITION = read().sources
TS = 1_700_000_000_000
"""A good time, in milliseconds."""


def csv_of(directory: Path, *lines: str, name: str = "t.csv") -> Path:
    file = directory / name
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


def parquet_of(directory: Path, **columns: pa.Array | list[Any]) -> Path:
    file = directory / "t.parquet"
    table = pa.table(columns)
    pyarrow.parquet.write_table(table, file, row_group_size=max(1, len(table)))
    return file


def checked(
    *files: Path,
    source: Source = PRICE,
    order: Order | None = None,
    rejects: Path | None = None,
    limit: int | None = None,
    **options: Any,
) -> tuple[TickFiles, Checked]:
    """Files once they are checked; `options` are those of `FileOptions`."""
    given = FileOptions(**options, keep_rows=rejects is not None)
    opened = TickFiles(files, source, given)
    kept = Rejects(rejects) if rejects is not None else None
    try:
        wanted = CheckOptions(order, kept, limit)
        found = check(opened, wanted, lambda _: None, Event())
        if kept is not None:
            kept.keep()
        return opened, found
    finally:
        if kept is not None:
            kept.close()


def messages_of(*files: Path, now_ns: int = 0, **options: Any) -> list[tuple[bytes, bytes]]:
    """The key and the value of every message that is sent of files."""
    found: list[tuple[bytes, bytes]] = []
    for rows in sendable(*checked(*files, **options)):
        found += zip(*rows.messages(now_ns).lists(), strict=True)
    return found


def sent(*files: Path, **options: Any) -> list[dict[str, Any]]:
    """The messages of files as objects, numbers as exact decimals."""
    return [
        json.loads(value, parse_float=Decimal, parse_int=Decimal)
        for _, value in messages_of(*files, **options)
    ]


def decoded(*files: Path, source: Source = PRICE, **options: Any) -> Ticks:
    """What a worker makes of the messages of files; none is rejected."""
    ticks = Decoder(source).decode(
        run_of(list(messages_of(*files, source=source, **options)), now())
    )
    assert ticks.rejected == []
    return ticks


def now() -> int:
    """A time that no test reaches, in milliseconds."""
    return 7_000_000_000_000


def times_of(*files: Path, **options: Any) -> list[int]:
    """The event times of files as a worker takes them, in nanoseconds."""
    return [int(time) for time in decoded(*files, **options).tick_time]
