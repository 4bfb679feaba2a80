"""The database schema, step by step (Alembic), run by `upgrade`."""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg2 import errorcodes
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from registry.database.tables import SCHEMA
from registry.errors import NewerRegistry, TablesBusy

LOCK = 7_242_019_001
"""Advisory lock: of two processes that migrate at once, one waits and finds nothing to do."""


IS_MISSING = text("SELECT to_regnamespace(:schema) IS NULL")
"""Whether there is no such schema: `IF NOT EXISTS` asks for the right to create one all the same,
which an account need not have whose schemas were created for it."""

PATIENCE = "5s"
"""Time that a step may wait for who reads a table, and delay all that is behind it."""


def configuration() -> Config:
    """Alembic's configuration without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(files(__package__ or __name__)))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(engine: Engine, patience: str = PATIENCE) -> None:
    """Migrate the database to the newest schema; several processes may do it at once.

    Raises `NewerRegistry` when a newer Tickwell has migrated it further, and `TablesBusy` when a
    transaction reads a table that changes for longer than `patience`, a duration as Postgres writes
    it. Nothing is changed then.
    """
    with engine.begin() as connection:  # one transaction: a lock of the session is lost in a pool
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        if connection.execute(IS_MISSING, {"schema": SCHEMA}).scalar():
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        config = configuration()
        _check_known(connection, config)
        config.attributes["connection"] = connection
        connection.execute(text(f"SET LOCAL lock_timeout = '{patience}'"))
        try:
            command.upgrade(config, "head")
        except OperationalError as error:
            if getattr(error.orig, "pgcode", None) != errorcodes.LOCK_NOT_AVAILABLE:
                raise
            raise TablesBusy(patience) from None


def _check_known(connection: Connection, config: Config) -> None:
    context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    unknown = set(context.get_current_heads()) - known
    if unknown:
        raise NewerRegistry(
            f"its schema is {', '.join(sorted(unknown))}, and this one knows up to {max(known)}"
        )
