"""Without the packages of the extra `avro` everything works but Avro and Protobuf."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.shipped import SHIPPED

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("fastavro", "google", "httpx2", "authlib", "cachetools"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""
PROGRAM = """
import pkgutil, importlib
import pipelines, registry, serving, tickwell

WIRE = "pipelines.ticks.wire"
EXTRA = {f"{WIRE}.avro_values", f"{WIRE}.protobuf_values", "__main__", "env"}
EXTRA.add("tickwell.feast_registry")  # of the extra `feast`, which its command asks for
for package in (pipelines, registry, serving, tickwell):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not {module.name, module.name.rpartition(".")[2]} & EXTRA:
            importlib.import_module(module.name)
from pipelines.errors import FormatUnreadable
from pipelines.ticks.decoder import Decoder
from pipelines.ticks.wire.schema_registry import RegistryConnection
from pipelines.ticks.wire.formats import registry_of
from registry.definitions import Field, Source
from tests.support.logs import NOW_MS, run_of

text = b'{"symbol":"A","price":1.5,"ts":%d}' % NOW_MS
for form, begin in (("json", b""), ("json-schema", bytes(5))):
    source = Source("s", "s", ("symbol",), (Field("price"),), format=form)
    run = run_of([(b"A", begin + text), (b"A", b"\\0\\0\\0\\0\\7x"), (b"A", None)])
    ticks = Decoder(source).decode(run)
    print(len(ticks), [rejected.detail for rejected in ticks.rejected])
for form in ("avro", "protobuf"):
    source = Source("s", "s", ("symbol",), (Field("price"),), format=form)
    connection = RegistryConnection("x")
    for attempt in (lambda: Decoder(source), lambda: registry_of([source], connection)):
        try:
            attempt()
        except FormatUnreadable as error:
            print(error)
"""
MIGRATE = "from tickwell.cli import main; sys.argv = ['tickwell', 'migrate']; main()"


def run(
    program: str, before: str = BLOCKED, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + program],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[5],
        env=environment or None,
    )


def test_all_but_these_formats_works() -> None:
    done = run(PROGRAM)
    assert done.returncode == 0, done.stderr
    json_said, schema_said, *refused = done.stdout.splitlines()
    assert json_said.startswith("1 [")
    assert "names the schema id 7" in json_said
    assert "a tombstone" in json_said
    assert schema_said.startswith("1 [")
    assert len(refused) == 4
    for line, form in zip(refused, ("avro", "avro", "protobuf", "protobuf"), strict=True):
        assert f"source s has the format {form}, which needs packages" in line
        assert "pip install 'tickwell[avro]'" in line


def migrated(directory: Path, form: str, blocked: bool) -> subprocess.CompletedProcess[str]:
    """`tickwell migrate` of a file with a source of a format, without anything to connect to."""
    features = directory / "features.toml"
    volume = 'topic = "ticks.volume"'
    features.write_text(SHIPPED.read_text().replace(volume, f'{volume}\nformat = "{form}"'))
    address = "127.0.0.1:1"
    return run(
        MIGRATE,
        BLOCKED if blocked else "import sys\n",
        TICKWELL_FEATURES=str(features),
        TICKWELL_KAFKA=address,
        TICKWELL_POSTGRES=f"postgresql://a:b@{address}/c",
    )


def test_a_file_that_needs_them_is_refused_in_one_line(tmp_path: Path) -> None:
    done = migrated(tmp_path, "avro", blocked=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("tickwell: source volume has the format avro, which needs ")
    assert "pip install 'tickwell[avro]'" in done.stderr


@pytest.mark.parametrize("form", ["avro", "protobuf"])
def test_a_file_that_needs_a_registry_is_refused_in_one_line(tmp_path: Path, form: str) -> None:
    """Before anything is recorded, and not at the first message."""
    done = migrated(tmp_path, form, blocked=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"tickwell: source volume has the format {form}: set TICKWELL_SCHEMA_REGISTRY to the URL "
        "of the schema registry that has its schemas\n"
    )
