"""The sources that the README declares read the messages that it shows beside them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from fastavro import schemaless_writer

from pipelines.ticks.decoder import Decoder
from pipelines.ticks.wire.formats import registry_of
from pipelines.ticks.wire.schema_registry import RegistryConnection
from registry.features_file import read
from tests.support.logs import NOW_MS, run_of
from tests.support.names import entities_of
from tests.support.registry_server import RegistryServer

README = Path(__file__).parents[3] / "README.md"
TOML = r"^```toml\n((?:(?!```)[^\n]*\n)+)```\n\n"
SHOWN = re.compile(rf"{TOML}```json\n(.+?)\n^```", re.MULTILINE | re.DOTALL)
WITH_FORMAT = re.compile(rf"{TOML}```sh\npip install 'tickwell\[avro\]'", re.MULTILINE)
FEATURE = """
[[feature]]
name = "last_price"
version = "1.0.0"
source = "{name}"
expression = "last(price)"
"""
SHOWN_IN_README = SHOWN.findall(README.read_text())


AVRO = {
    "type": "record",
    "name": "Trade",
    "fields": [
        {"name": "symbol", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {
            "name": "quote",
            "type": {
                "type": "record",
                "name": "Quote",
                "fields": [{"name": "px", "aliases": ["price"], "type": "double"}],
            },
        },
    ],
}


def test_a_source_with_a_format(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The schema that it names has another name of the price than a message."""
    (declared,) = WITH_FORMAT.findall(README.read_text())
    file = tmp_path / "features.toml"
    file.write_text(declared + FEATURE.format(name="quotes"))
    (source,) = read(file).sources
    server = RegistryServer()
    request.addfinalizer(server.stop)
    older = json.loads(json.dumps(AVRO).replace('"px"', '"price"'))
    server.schemas |= {11: {"schema": json.dumps(older)}, 12: {"schema": json.dumps(AVRO)}}
    stream = BytesIO()
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    schemaless_writer(stream, older, {"symbol": "A", "at": at, "quote": {"price": 42.5}})
    registry = registry_of([source], RegistryConnection(server.url))
    message = (11).to_bytes(5, "big") + stream.getvalue()
    ticks = Decoder(source, registry=registry).decode(run_of([(b"A", message)]))
    assert ticks.rejected == []
    assert (entities_of(ticks), ticks.fields[0, 0]) == (["A"], 42.5)
    assert ticks.tick_time.tolist() == [NOW_MS * 10**6]


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
    assert entities_of(ticks) == [symbol]
    assert ticks.fields.tolist() == [values]
    assert ticks.tick_time[0] // 10**9 == NOW_MS // 1000
