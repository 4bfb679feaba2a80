"""Spark reads the lake by the page's example, in an environment of its own."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine

from registry.database.engine import connect
from tests.support.lakes import History, as_read, complete, example_of, exported
from tests.support.rebuilds import Stores

BUILD = Path(__file__).parents[2] / "build/spark"
ARGUMENTS = (
    "--master local[1] --conf spark.ui.enabled=false --conf spark.driver.bindAddress=127.0.0.1"
    " --conf spark.driver.host=127.0.0.1 --conf spark.sql.shuffle.partitions=2 pyspark-shell"
)
SCRIPT = """
import json, sys
lake = sys.argv[1]
{code}
def bits(value):
    return value.hex() if isinstance(value, float) else value
print(json.dumps([[bits(value) for value in row] for row in rows.collect()]))
"""


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


@pytest.fixture
def python() -> Path:
    """The interpreter of an environment with Spark, which is kept."""
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    made = BUILD / "bin/python"
    if not (BUILD / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(BUILD)], check=True)
        install = [str(made), "-m", "pip", "install", "-q", "pyspark>=4,<5"]
        subprocess.run(install, check=True, timeout=1200)
        (BUILD / ".installed").touch()
    return made


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backfilled", [False, True], ids=["", "backfilled"])
def test_spark_reads_the_bits_of_postgres(
    stores: Stores, engine: Engine, tmp_path: Path, python: Path, backfilled: bool
) -> None:
    history = History(stores, engine, random.Random(5))
    for _ in range(4):
        history.live(40, 3)
    history.record_version()
    history.live(40, 3)
    history.replay()
    history.load(days=1)
    if backfilled:
        history.backfill()
    lake = tmp_path / "lake"
    exported(stores.postgres, lake)
    script = tmp_path / "read.py"
    script.write_text(SCRIPT.format(code=example_of("Spark")))
    environment = {**os.environ, "PYSPARK_SUBMIT_ARGS": ARGUMENTS, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        [python, script, lake], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = msgspec.json.decode(done.stdout)
    assert [tuple(row) for row in found] == as_read(stores.postgres, complete(engine))
