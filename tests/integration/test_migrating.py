"""Tables of an earlier build are brought up to date while others read them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from psycopg2.extensions import make_dsn
from sqlalchemy import Engine, text

from registry.database import migrations
from registry.database.engine import connect
from registry.errors import TablesBusy
from registry.features_file import read, text_of
from registry.lifecycle.changing import LOCK
from registry.lifecycle.recording import record
from tests.support.pipeline import wait_for
from tests.support.sinks import query
from tickwell.migrate import migrate
from tickwell.settings import Settings

OTHER = """
[[feature]]
name = "{}"
version = "1.0.0"
source = "price"
expression = "mean(price, 7)"
"""
REVISION = text("SELECT version_num FROM tickwell.alembic_version")


def of_an_earlier_build(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA tickwell CASCADE"))
        connection.execute(text("CREATE SCHEMA tickwell"))
        connection.execute(text("DROP SCHEMA IF EXISTS features CASCADE"))
        config = migrations.configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_of_two_at_once_one_records_its_file_and_the_other_finds_it(
    engine: Engine, kafka: str, postgres_database: str, tmp_path: Path
) -> None:
    """Both have seen that nothing is recorded."""
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    features = text_of(None).text.replace('topic = "ticks.', f'topic = "{prefix}.')
    settings = []
    for name in ("one", "two"):
        file = tmp_path / f"{name}.toml"
        file.write_text(features + OTHER.format(name))
        settings.append(
            Settings(
                kafka=kafka,
                postgres=postgres_database,
                rejected_topic=f"{prefix}.rejected",
                features=str(file),
                partitions=1,
            )
        )
    holder = psycopg2.connect(postgres_database)
    try:
        holder.cursor().execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        with ThreadPoolExecutor(2) as threads:
            running = threads.map(migrate, settings)
            waiting = (
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
                " AND (classid::bigint << 32 | objid::bigint) = %s"
            )
            wait_for("both wait", lambda: query(postgres_database, waiting % LOCK) == [(2,)])
            holder.close()
            known = list(running)
    finally:
        holder.close()
    assert len({"one", "two"} & known[0].active.keys()) == 1
    assert known[0] == known[1]


@pytest.fixture
def impatient(postgres_database: str) -> Iterator[Engine]:
    """So that a test that would wait for ever fails."""
    made = connect(postgres_database, statement_timeout_ms=20_000)
    yield made
    made.dispose()


def test_it_waits_for_a_reader_only_so_long(impatient: Engine, postgres_database: str) -> None:
    """All that reads the table behind it would wait for that reader, too."""
    engine = impatient
    of_an_earlier_build(engine, "0017")
    reader = psycopg2.connect(postgres_database)
    try:
        reader.cursor().execute("SELECT FROM tickwell.active_columns")
        with pytest.raises(TablesBusy, match="nothing was changed"):
            migrations.upgrade(engine, patience="100ms")
        with engine.connect() as connection:
            assert connection.execute(REVISION).scalar() == "0017"
    finally:
        reader.close()
    migrations.upgrade(engine, patience="100ms")
    newest = ScriptDirectory.from_config(migrations.configuration()).get_current_head()
    with engine.connect() as connection:
        assert connection.execute(REVISION).scalar() == newest


def test_what_is_up_to_date_waits_for_nobody(engine: Engine, postgres_database: str) -> None:
    reader = psycopg2.connect(postgres_database)
    try:
        reader.cursor().execute("SELECT FROM tickwell.active_columns, tickwell.feature_rows")
        migrations.upgrade(engine, patience="100ms")
    finally:
        reader.close()


def test_an_account_whose_schemas_were_created_for_it_needs_no_right_to_create_one(
    engine: Engine, postgres_database: str
) -> None:
    role = f"tickwell_{uuid.uuid4().hex}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
    try:
        with engine.begin() as connection:
            for schema in ("tickwell", "features"):
                connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
                connection.execute(text(f"CREATE SCHEMA {schema} AUTHORIZATION {role}"))
        account = connect(make_dsn(postgres_database, options=f"-c role={role}"))
        try:
            migrations.upgrade(account)
            record(account, read(), "ann")
            migrations.upgrade(account)
        finally:
            account.dispose()
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
