"""The definitions that ship: their file, the file with a change, and what the price source is."""

from __future__ import annotations

from pathlib import Path

from registry.definitions import Catalog, RowSchema
from registry.features_file import read
from registry.language.program import compile_program
from registry.source_rules import SourceRules

SHIPPED = Path(read.__code__.co_filename).with_name("features.toml")

definitions = read()
SOURCE = definitions.sources[0]
SCHEMA = RowSchema(1, "price", tuple(f.ref for f in definitions.features if f.source == "price"))
CATALOG = Catalog(
    sources={"price": SOURCE},
    features={f.ref: f for f in definitions.features},
    active={},
    schemas={1: SCHEMA},
    writing={"price": 1},
)
RULES = SourceRules.always(SOURCE)
PROGRAM = compile_program(CATALOG, SCHEMA)


def changed(directory: Path, old: str, new: str) -> Path:
    """The shipped file with every `old` replaced by `new`, which must change something."""
    text = SHIPPED.read_text()
    assert old in text
    file = directory / "features.toml"
    file.write_text(text.replace(old, new))
    return file
