"""The embedded services after a crash in the middle of making them, and the odd directory."""

from __future__ import annotations

from pathlib import Path

import psycopg2
import pytest

from tests.support.services import embedded
from tickwell.embedded.broker import broker
from tickwell.embedded.postgres import postgres
from tickwell.errors import TickwellError


def test_postgres_is_made_anew_where_it_was_half_made(data: Path) -> None:
    place = data / "half-made"
    (place / "cluster.unfinished").mkdir(parents=True)
    (place / "cluster").mkdir()
    (place / "password").touch()
    with embedded(lambda: postgres(place)) as url:
        psycopg2.connect(url).close()
        wrong = url.replace("postgres:", "postgres:not", 1)
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(wrong)
    assert (place / "password").stat().st_mode & 0o077 == 0


def test_kafka_says_which_directory_it_cannot_have(tmp_path: Path) -> None:
    with pytest.raises(TickwellError, match="a comma separates directories"):
        broker(tmp_path / "a,b", "kafka")
