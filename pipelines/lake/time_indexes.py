"""Indexes by which a day of rows is found, for months that were attached without one.

They are block range indexes: a few hundred kilobytes for a month. Without one, each day would read
its whole month.
"""

from __future__ import annotations

import logging

from psycopg2 import errorcodes
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from registry.resources import sql

logger = logging.getLogger(__name__)

WITHOUT_TIME_INDEX = sql(__package__, "without_time_index")
PATIENCE = text("SET lock_timeout = '10s'")
REFUSED = (errorcodes.INSUFFICIENT_PRIVILEGE, errorcodes.LOCK_NOT_AVAILABLE)


def make_time_indexes(engine: Engine) -> list[str]:
    """Make the indexes that are missing, and return the partitions that still have none.

    Live is not stopped by it. An account that may not, and a transaction that is open for long,
    are no error: days are then read more slowly. Raises SQLAlchemy's `DBAPIError` for anything
    else.
    """
    left = []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        missing = connection.exec_driver_sql(WITHOUT_TIME_INDEX).scalars().all()
        if missing:
            connection.execute(PATIENCE)
        for name in missing:
            index = f"tickwell.{name}_times"
            try:
                # what was begun and not ended is no use
                connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index}")
                connection.exec_driver_sql(
                    f"CREATE INDEX CONCURRENTLY {name}_times ON tickwell.{name}"
                    " USING brin (event_time) WITH (autosummarize = on)"
                )
            except DBAPIError as error:
                if getattr(error.orig, "pgcode", None) not in REFUSED:
                    raise
                logger.warning("%s has no index of event times: %s", name, error.orig)
                left.append(name)
        if missing:
            connection.execute(text("RESET lock_timeout"))
    return left
