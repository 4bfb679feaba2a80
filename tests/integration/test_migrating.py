"""Tables of an earlier build are brought up to date while others read them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg2
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from psycopg2.extensions import make_dsn
from sqlalchemy import Engine, text

from registry.database import migrations
from registry.database.engine import connect
from registry.errors import TablesBusy
from registry.features_file import read
from registry.lifecycle.recording import record

REVISION = text("SELECT version_num FROM tickwell.alembic_version")


def of_an_earlier_build(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA tickwell CASCADE"))
        connection.execute(text("CREATE SCHEMA tickwell"))
        connection.execute(text("DROP SCHEMA IF EXISTS features CASCADE"))
        config = migrations.configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


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
