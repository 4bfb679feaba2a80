"""The embedded services after a crash in the middle of making them, and the odd directory."""

from __future__ import annotations

from pathlib import Path

import psycopg2
import pytest

from tests.support.services import embedded
from tickwell.embedded.broker import broker
from tickwell.embedded.postgres import postgres
from tickwell.errors import TickwellError


def test_a_half_made_postgres_is_made_again(data: Path) -> None:
    directory = data / "half-made"
    (directory / "cluster.unfinished").mkdir(parents=True)
    (directory / "cluster").mkdir()
    (directory / "password").touch()
    with embedded(lambda: postgres(directory)) as url:
        psycopg2.connect(url).close()
        wrong = url.replace("postgres:", "postgres:not", 1)
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(wrong)
    assert (directory / "password").stat().st_mode & 0o077 == 0


def test_kafka_says_which_directory_it_cannot_have(tmp_path: Path) -> None:
    with pytest.raises(TickwellError, match="a comma separates directories"):
        broker(tmp_path / "a,b", "kafka")
