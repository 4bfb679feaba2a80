"""The registry in a real Postgres: migrations, recording, views, partitions."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from registry import catalog
from registry.database import migrations
from registry.database.backfill_tables import backfills
from registry.database.lake_tables import lake_files
from registry.database.load_tables import loads
from registry.database.month_partitions import attach_ahead
from registry.database.repair_tables import repairs
from registry.database.training_set_tables import training_sets
from registry.database.verified_tables import verified_to
from registry.errors import DefinitionError, RegistryEmpty, RulesChanged, VersionChanged
from registry.features_file import read
from registry.lifecycle.recording import record
from tests.support.shipped import changed

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_models_are_what_migrations_make(engine: Engine) -> None:
    tables = backfills, lake_files, loads, repairs, training_sets, verified_to
    (metadata,) = {table.metadata for table in tables}
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == "tickwell",
                "include_object": lambda _, name, kind, *rest: (
                    not (
                        kind == "table"
                        and (name == "alembic_version" or name.startswith("feature_rows_"))
                    )
                ),
                "compare_type": True,
            },
        )
        assert compare_metadata(context, metadata) == []


def test_two_processes_migrate_at_once(engine: Engine, postgres_database: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA tickwell CASCADE"))
        connection.execute(text("DROP SCHEMA features CASCADE"))
    code = (
        "import sys; from registry.database import migrations;"
        "from registry.database.engine import connect;"
        "migrations.upgrade(connect(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, postgres_database]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    migrations.upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM tickwell.feature_rows")).scalar() == 0


def test_recording_the_same_again_changes_nothing(engine: Engine) -> None:
    with pytest.raises(RegistryEmpty):
        catalog.load(engine)
    first = record(engine, read(), "ann")
    with engine.connect() as connection:
        audited = connection.execute(text("SELECT count(*) FROM tickwell.audit")).scalar()
    assert record(engine, read(), "bob") == first == catalog.load(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM tickwell.audit")).scalar() == audited
    assert first.active["price_sma_5"] == "1.0.0"
    assert sorted(first.writing) == ["position", "price", "volume"]


def test_a_version_never_changes(engine: Engine, tmp_path: Path) -> None:
    before = record(engine, read(), "ann")
    other = read(changed(tmp_path, '"mean(price, 5)"', '"mean(price, 6)"'))
    with pytest.raises(VersionChanged, match=r"price_sma_5@1\.0\.0.*new version number"):
        record(engine, other, "ann")
    skew = read(changed(tmp_path, 'skew = "1s"', 'skew = "2s"'))
    with pytest.raises(RulesChanged, match="skew `1s` would become `2s`"):
        record(engine, skew, "ann")
    topic = read(changed(tmp_path, "ticks.price", "ticks.prices"))
    with pytest.raises(DefinitionError, match="cannot change"):
        record(engine, topic, "ann")
    assert catalog.load(engine) == before


def test_a_new_version_makes_a_new_row_schema(engine: Engine, tmp_path: Path) -> None:
    before = record(engine, read(), "ann")
    file = changed(tmp_path, 'description = "The last price."', 'description = "Reworded."')
    more = '[[feature]]\nname = "price_sma_5"\nversion = "2.0.0"\nsource = "price"\n'
    file.write_text(file.read_text() + more + 'expression = "mean(price, 6)"\n')
    after = record(engine, read(file), "ann")
    assert after.active["price_sma_5"] == "1.0.0"
    assert after.writing["price"] != before.writing["price"]
    assert after.writing["volume"] == before.writing["volume"]
    assert before.schemas.items() <= after.schemas.items()


def test_partitions_are_attached_ahead_and_never_wait_long(engine: Engine) -> None:
    with engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM tickwell.feature_rows"))
        assert attach_ahead(engine, NOW, 2) == []
    assert attach_ahead(engine, NOW, 2) == [
        "feature_rows_2026_10",
        "feature_rows_2026_11",
        "feature_rows_2026_12",
        "feature_rows_2027_01",
    ]
    assert attach_ahead(engine, NOW, 2) == []
    with engine.begin() as connection:
        at = int(NOW.timestamp()) * 10**9
        connection.execute(
            text(
                "INSERT INTO tickwell.feature_rows VALUES (1, 'A', :at, 0, 0, 1, NULL, 0, '{}',"
                " '{}', '', 2000, gen_random_uuid(), 0, 0, 0)"
            ),
            {"at": at},
        )
        name = connection.execute(
            text("SELECT tableoid::regclass::text FROM tickwell.feature_rows")
        )
        assert name.scalar() == "tickwell.feature_rows_2026_11"
