"""What the views show when versions are activated, retired and recorded, and who waits for that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.errors import SerializationFailure
from sqlalchemy import Connection, Engine, text

from registry import catalog
from registry.database.active_columns import update_active_columns
from registry.database.views import create_views
from registry.errors import ViewBusy
from registry.features_file import read
from registry.lifecycle.recording import record

SCHEMA = text(
    "INSERT INTO tickwell.row_schemas (source, features) VALUES ('price', :refs) RETURNING id"
)
ROW = text(
    "INSERT INTO tickwell.feature_rows VALUES (:schema, :entity, :time, 0, 0, 1, NULL, 0,"
    " ARRAY[1, 'NaN'::float8], :features, '', 2000, gen_random_uuid(), 0, :offset, 0)"
)
ACTIVATE = text(
    "INSERT INTO tickwell.active_versions VALUES (:name, :version)"
    " ON CONFLICT (name) DO UPDATE SET version = excluded.version"
)
MADE = text("SELECT xmin::text FROM pg_rewrite WHERE ev_class = 'features.price'::regclass")
EARLIER_BUILD = """
CREATE VIEW features.price AS
SELECT entity AS symbol, entity,
    timestamptz '1970-01-01 00:00:00Z' + event_time / 1000 * interval '1 microsecond' AS ts,
    event_time, sequence, nullif(fields[1], 'NaN') AS price, nullif(fields[2], 'NaN') AS size,
    timestamptz '1970-01-01 00:00:00Z' + known_at / 1000 * interval '1 microsecond' AS known_at,
    nullif(CASE schema_id WHEN 1 THEN features[4] END, 'NaN') AS price_volatility,
    nullif(CASE schema_id WHEN 1 THEN features[1] END, 'NaN') AS current_price
FROM tickwell.feature_rows WHERE schema_id IN (1)
"""


class Stored(NamedTuple):
    """A row: its row schema, of how many; its entity and time; the values of its features."""

    schema: int
    entity: str
    time: int
    values: tuple[float, ...]


@pytest.fixture
def begun(engine: Engine) -> Engine:
    """A database that knows the shipped features; of `price` it has one row schema."""
    record(engine, read(), "ann")
    return engine


def schema(connection: Connection, *refs: str) -> int:
    """Record a row schema of `price`."""
    made = int(connection.execute(SCHEMA, {"refs": list(refs)}).scalar_one())
    update_active_columns(connection, catalog.read(connection))
    return made


def activate(connection: Connection, name: str, version: str) -> None:
    connection.execute(ACTIVATE, {"name": name, "version": version})
    update_active_columns(connection, catalog.read(connection))


def deactivate(connection: Connection, name: str) -> None:
    connection.execute(text("DELETE FROM tickwell.active_versions WHERE name = :n"), {"n": name})
    update_active_columns(connection, catalog.read(connection))


def store(connection: Connection, rows: Sequence[Stored]) -> None:
    for offset, row in enumerate(rows):
        given = {"schema": row.schema, "entity": row.entity, "time": row.time, "offset": offset}
        connection.execute(ROW, given | {"features": list(row.values)})


def shown(connection: Connection, *names: str) -> list[tuple[Any, ...]]:
    columns = ", ".join(names)
    found = connection.execute(text(f"SELECT {columns} FROM features.price ORDER BY event_time"))
    return [tuple(row) for row in found]


@contextmanager
def without_waiting(engine: Engine) -> Iterator[Connection]:
    """A transaction that fails where it would wait for another one."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '1ms'"))
        yield connection


def two_versions(engine: Engine, count: int = 3000) -> None:
    """Rows of which `price_sma_5` is 1 by the active version and 2 by one on standby."""
    with engine.begin() as connection:
        made = schema(connection, "price_sma_5@1.0.0", "price_sma_5@2.0.0")
        store(connection, [Stored(made, "A", time, (1.0, 2.0)) for time in range(count)])


def test_a_long_query_goes_on_with_what_it_began_with(
    begun: Engine, postgres_database: str
) -> None:
    two_versions(begun)
    reader = psycopg2.connect(postgres_database)
    cursor = reader.cursor("long")
    cursor.itersize = 10
    cursor.execute("SELECT price_sma_5 FROM features.price")
    assert cursor.fetchmany(10) == [(1.0,)] * 10
    with without_waiting(begun) as connection:
        activate(connection, "price_sma_5", "2.0.0")
    with begun.connect() as connection:
        assert shown(connection, "price_sma_5") == [(2.0,)] * 3000
    assert cursor.fetchall() == [(1.0,)] * 2990
    reader.close()


def test_a_transaction_with_one_snapshot_keeps_its_version(begun: Engine) -> None:
    two_versions(begun, 3)
    with begun.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
        assert shown(reader, "price_sma_5") == [(1.0,)] * 3
        with without_waiting(begun) as connection:
            activate(connection, "price_sma_5", "2.0.0")
            newer = schema(connection, "price_sma_5@2.0.0")
            store(connection, [Stored(newer, "A", 1, (3.0,)), Stored(newer, "A", 9, (4.0,))])
        assert shown(reader, "price_sma_5") == [(1.0,)] * 3
        reader.rollback()
        assert shown(reader, "price_sma_5") == [(2.0,), (3.0,), (2.0,), (4.0,)]


def test_an_activation_that_is_rolled_back_was_none(begun: Engine) -> None:
    two_versions(begun, 2)
    with begun.connect() as connection:
        activate(connection, "price_sma_5", "2.0.0")
        assert shown(connection, "price_sma_5") == [(2.0,)] * 2
        connection.rollback()
        assert shown(connection, "price_sma_5") == [(1.0,)] * 2


def test_going_back_shows_the_version_of_before(begun: Engine) -> None:
    two_versions(begun, 2)
    for version, value in (("2.0.0", 2.0), ("1.0.0", 1.0)):
        with without_waiting(begun) as connection:
            activate(connection, "price_sma_5", version)
            assert shown(connection, "price_sma_5") == [(value,)] * 2


def test_a_row_schema_more_replaces_no_view(begun: Engine) -> None:
    with begun.connect() as reader:
        shown(reader, "price")
        before = reader.execute(MADE).scalar_one()
        with without_waiting(begun) as connection:
            made = schema(connection, "price_sma_5@2.0.0", "current_price@1.0.0")
            store(connection, [Stored(made, "A", 1, (5.0, 6.0))])
        create_views(begun, patience="1ms")
        assert shown(reader, "current_price", "price_sma_5", "price_sma_20") == [(6.0, None, None)]
        assert reader.execute(MADE).scalar_one() == before


def test_a_prepared_statement_never_leaves_out_the_newest_rows(
    begun: Engine, postgres_database: str
) -> None:
    """Its plan may be older than the row schema, as long as its transaction is open."""
    reader = psycopg2.connect(postgres_database)
    cursor = reader.cursor()
    cursor.execute("PREPARE asked AS SELECT count(*) FROM features.price")
    cursor.execute("EXECUTE asked")
    with begun.begin() as connection:
        store(connection, [Stored(schema(connection, "current_price@1.0.0"), "A", 1, (1.0,))])
    with pytest.raises(SerializationFailure, match="row schema of price was recorded after"):
        cursor.execute("EXECUTE asked")
    reader.rollback()
    cursor.execute("EXECUTE asked")
    assert cursor.fetchall() == [(1,)]
    reader.close()


def test_a_retired_version_leaves_its_rows(begun: Engine) -> None:
    with begun.begin() as connection:
        both = schema(connection, "price_sma_5@1.0.0", "price_sma_20@1.0.0")
        one = schema(connection, "price_sma_20@1.0.0")
        store(connection, [Stored(both, "A", 1, (1.0, 2.0)), Stored(one, "A", 2, (3.0,))])
        assert shown(connection, "price_sma_5", "price_sma_20") == [(1.0, 2.0), (None, 3.0)]
        deactivate(connection, "price_sma_5")
        assert shown(connection, "price_sma_5", "price_sma_20") == [(None, 2.0), (None, 3.0)]


def test_a_busy_view_keeps_no_other_from_its_column(begun: Engine) -> None:
    with begun.begin() as connection:
        connection.execute(
            text("INSERT INTO tickwell.row_schemas (source, features) VALUES ('volume', '{new@1}')")
        )
        made = schema(connection, "current_price@1.0.0", "fresh@1.0.0")
        activate(connection, "fresh", "1.0.0")
        store(connection, [Stored(made, "A", 1, (1.0, 2.0))])
    with begun.connect() as reader:
        shown(reader, "price")
        with pytest.raises(ViewBusy, match=r"definitions are recorded.*tickwell migrate"):
            create_views(begun, patience="100ms")
        reader.execute(text("SELECT new FROM features.volume"))
    create_views(begun)
    with begun.connect() as connection:
        assert shown(connection, "current_price", "fresh") == [(1.0, 2.0)]


def test_a_view_of_an_earlier_build_is_replaced_in_place(engine: Engine) -> None:
    kept = text(
        "SELECT oid, relacl::text, reloptions FROM pg_class WHERE oid = 'features.price'::regclass"
    )
    with engine.begin() as connection:
        connection.execute(text(EARLIER_BUILD))
        for statement in (
            "CREATE VIEW public.mine AS SELECT symbol, price_volatility FROM features.price",
            "GRANT SELECT ON features.price TO PUBLIC",
            "ALTER VIEW features.price SET (security_barrier = true, check_option = local)",
        ):
            connection.execute(text(statement))
        before = connection.execute(kept).one()
        names = list(connection.execute(text("SELECT * FROM features.price")).keys())
    record(engine, read(), "ann")
    with engine.begin() as connection:
        two = schema(connection, "price_volatility@1.0.0")
        store(connection, [Stored(two, "A", 1, (7.0,))])
        after = connection.execute(kept).one()
        found = list(connection.execute(text("SELECT * FROM features.price")).keys())
        mine = connection.execute(text("SELECT * FROM public.mine")).all()
    assert (after.oid, after.relacl) == (before.oid, before.relacl)
    assert after.reloptions == ["security_barrier=true"]
    assert found == [*names, "price_sma_5", "price_sma_20"]
    assert mine == [("A", 7.0)]


@pytest.mark.parametrize("invoker", [False, True])
def test_who_may_read_the_view_needs_no_more(begun: Engine, invoker: bool) -> None:
    """With `security_invoker` the rows, and nothing of what the view looks up."""
    two_versions(begun, 2)
    role = f"guest_{begun.url.database or 'of'}_{id(begun)}"
    with begun.connect() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA features TO {role}"))
        connection.execute(text(f"GRANT SELECT ON features.price TO {role}"))
        if invoker:
            connection.execute(text("ALTER VIEW features.price SET (security_invoker = true)"))
            connection.execute(text(f"GRANT SELECT ON tickwell.feature_rows TO {role}"))
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        assert shown(connection, "price_sma_5", "ts::date") != []
        connection.rollback()  # and the role with it


def test_a_range_of_time_reads_its_partitions_alone(begun: Engine) -> None:
    with begun.begin() as connection:
        for number in range(3):
            connection.execute(
                text(
                    f"CREATE TABLE tickwell.feature_rows_{number} PARTITION OF"
                    f" tickwell.feature_rows FOR VALUES FROM ({number}00) TO ({number + 1}00)"
                )
            )
        plan = connection.execute(
            text(
                "EXPLAIN SELECT price_sma_5 FROM features.price"
                " WHERE symbol = 'A' AND event_time BETWEEN 110 AND 120"
            )
        ).scalars()
        found = "\n".join(plan)
    assert "feature_rows_1" in found
    assert not any(name in found for name in ("feature_rows_0", "feature_rows_2", "default"))
    assert "feature_rows_1_pkey" in found


# ---------------------------------------------------------------- at random, beside an oracle

NAMES = ("a", "b", "c")
REFS = [f"{name}@{version}" for name in NAMES for version in ("1.0.0", "2.0.0")]
NUMBERS = st.sampled_from([math.nan, -1.5, 0.0, 2.0, 1e300])
SCHEMAS = st.lists(st.lists(st.sampled_from(REFS), max_size=6, unique=True), min_size=1, max_size=5)


@st.composite
def registries(draw: st.DrawFn) -> tuple[list[list[str]], dict[str, str], list[Stored]]:
    """Row schemas, active versions by name, and rows with the number of their row schema."""
    schemas = draw(SCHEMAS)
    chosen = {name: draw(st.sampled_from([None, "1.0.0", "2.0.0", "3.0.0"])) for name in NAMES}
    keys = st.tuples(st.integers(0, len(schemas) - 1), st.sampled_from("AB"), st.integers(0, 4))
    rows = []
    for number, entity, time in draw(st.lists(keys, max_size=20, unique=True)):
        values = tuple(draw(NUMBERS) for _ in schemas[number])
        rows.append(Stored(number, entity, time, values))
    return schemas, {name: one for name, one in chosen.items() if one is not None}, rows


def expected(
    schemas: list[list[str]], active: dict[str, str], rows: list[Stored]
) -> set[tuple[Any, ...]]:
    """Each tick once, as its newest row schema has it; None where that has no number."""
    newest: dict[tuple[str, int], Stored] = {}
    for row in sorted(rows):
        newest[row.entity, row.time] = row
    found = set()
    for row in newest.values():
        values = dict(zip(schemas[row.schema], row.values, strict=True))
        of_names = [values.get(f"{name}@{active.get(name)}", math.nan) for name in NAMES]
        shown = (None if math.isnan(value) else value for value in of_names)
        found.add((row.entity, row.time, *shown))
    return found


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(registries())
def test_views_show_what_an_oracle_expects(
    begun: Engine, made: tuple[list[list[str]], dict[str, str], list[Stored]]
) -> None:
    schemas, active, rows = made
    ever = {ref.partition("@")[0] for refs in schemas for ref in refs}
    with begun.begin() as connection:
        for statement in (
            "TRUNCATE tickwell.feature_rows, tickwell.row_schemas, tickwell.active_versions",
            "DROP VIEW IF EXISTS features.price, features.volume, features.position",
        ):
            connection.execute(text(statement))
        for name, version in active.items():
            activate(connection, name, version)
        ids = []
        for refs in schemas:  # between them is one of another source
            connection.execute(
                text("INSERT INTO tickwell.row_schemas (source, features) VALUES ('volume', '{}')")
            )
            ids.append(schema(connection, *refs))
        store(connection, [row._replace(schema=ids[row.schema]) for row in rows])
    create_views(begun)
    columns = [name if name in ever else f"NULL AS {name}" for name in NAMES]
    with begun.connect() as connection:
        found = shown(connection, "symbol", "event_time", *columns)
    assert len(found) == len(set(found))
    assert set(found) == expected(schemas, active, rows)
