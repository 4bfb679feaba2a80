"""Files of packages of PyPI, which nobody here made, as a new user would load them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.produce.errors import BadRow
from registry.definitions import Source
from tests.support.names import name_of
from tests.support.tick_files import PRICE, VOLUME, decoded

BOKEH = Path(str(files("bokeh_sampledata"))) / "_data"


@pytest.mark.parametrize(
    ("name", "source", "field", "columns"),
    [
        ("stocks", PRICE, "price", {"symbol": "Ticker", "ts": "Date", "price": "Close"}),
        ("stocks", PRICE, "price", {"symbol": "Ticker", "ts": "Date", "price": "Adj Close"}),
        ("stocks", VOLUME, "volume", {"symbol": "Ticker", "ts": "Date", "volume": "Volume"}),
        ("sea_surface_temperature", PRICE, "price", {"ts": "#1", "price": "#2"}),
        ("CGM", PRICE, "price", {"ts": "datetime", "price": "glucose"}),
    ],
)
def test_bokeh_sampledata(name: str, source: Source, field: str, columns: dict[str, str]) -> None:
    """Compared with pandas, to the bit; rows without a value are passed over."""
    file = BOKEH / f"{name}.csv.gz"
    constants = {} if "symbol" in columns else {"symbol": "X"}
    options: dict[str, Any] = {"columns": columns, "constants": constants, "skip_empty": True}
    frame = pd.read_csv(file)
    names = {
        key: frame.columns[int(column[1:]) - 1] if column.startswith("#") else column
        for key, column in columns.items()
    }
    frame = frame[frame[names[field]].notna() & frame[names["ts"]].notna()]
    found = decoded(file, source=source, **options)
    assert found.fields[:, 0].tolist() == frame[names[field]].tolist()
    assert found.tick_time.tolist() == nanoseconds(frame[names["ts"]])
    if "symbol" in columns:
        symbols = [name_of(found.data, keys) for keys in found.keys]
        assert symbols == frame["Ticker"].tolist()


def nanoseconds(column: pd.Series[Any]) -> list[int]:
    moments = pd.to_datetime(column, utc=True).dt.tz_localize(None)
    times: list[int] = moments.astype("datetime64[ns]").astype("int64").tolist()
    return times


def test_what_a_real_file_has_for_a_number() -> None:
    """Among 52,000 numbers is a `nil`."""
    columns = {"ts": "datetime", "price": "isig"}
    with pytest.raises(BadRow, match="row 39459, column isig: 'nil' is not a number"):
        decoded(BOKEH / "CGM.csv.gz", constants={"symbol": "X"}, columns=columns)


@pytest.mark.long
def test_backtesting(tmp_path: Path) -> None:
    """Every CSV of the package: a first column without a name, days and hours."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path)]
    subprocess.run([*command, "backtesting"], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".csv")]
        archive.extractall(tmp_path, names)
    tried = 0
    for name in names:
        frame = pd.read_csv(tmp_path / name)
        if "Close" not in frame.columns:
            continue
        columns = {"ts": "#1", "price": "Close"}
        found = decoded(tmp_path / name, constants={"symbol": "X"}, columns=columns)
        assert found.fields[:, 0].tolist() == frame["Close"].tolist()
        assert found.tick_time.tolist() == nanoseconds(frame.iloc[:, 0])
        tried += 1
    assert tried >= 2, names
