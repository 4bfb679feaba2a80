"""The sources that the README declares read the messages that it shows beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.ticks.decoder import Decoder
from registry.features_file import read
from tests.support.logs import NOW_MS, run_of

README = Path(__file__).parents[3] / "README.md"
SHOWN = re.compile(r"^```toml\n(.+?)^```\n\n```json\n(.+?)\n^```", re.MULTILINE | re.DOTALL)
FEATURE = """
[[feature]]
name = "last_price"
version = "1.0.0"
source = "{name}"
expression = "last(price)"
"""
SHOWN_IN_README = SHOWN.findall(README.read_text())


def test_there_are_some() -> None:
    assert len(SHOWN_IN_README) == 3


@pytest.mark.parametrize(("declared", "message"), SHOWN_IN_README)
def test_a_source_reads_its_message(tmp_path: Path, declared: str, message: str) -> None:
    name = re.search(r'^name = "(\w+)"', declared, re.MULTILINE)
    assert name is not None
    file = tmp_path / "features.toml"
    file.write_text(declared + FEATURE.format(name=name[1]))
    (source,) = read(file).sources
    key = {"trades": b"BTCUSDT", "futures": b"ESH4", "spot": None}[source.name]
    ticks = Decoder(source).decode(run_of([(key, message.encode())], NOW_MS + 1000))
    assert ticks.rejected == []
    expected = {"trades": ("BTCUSDT", 42000.1, 0.02), "futures": ("ESH4", 3720.25, 5.0)}
    symbol, *values = expected.get(source.name, ("BTC/USD", 42000.1, 0.02))
    assert ticks.entities == [symbol]
    assert ticks.fields.tolist() == [values]
    assert ticks.tick_time[0] // 10**9 == NOW_MS // 1000
