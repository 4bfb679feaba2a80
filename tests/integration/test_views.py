"""The views that people write SQL on: what they show, what hangs on them, how they are read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from registry import catalog
from registry.database import views
from registry.database.month_partitions import attach_ahead
from registry.definitions import Catalog, Definitions
from registry.errors import NotOurView, ViewBusy
from registry.features_file import read
from registry.lifecycle.recording import Limits, record
from tests.support.shipped import SHIPPED

MORE = """
[[feature]]
name = "a_mean"
version = "1.0.0"
source = "price"
expression = "mean(price, 3)"
"""
OLD_LAYOUT = """
CREATE VIEW features.price AS
SELECT split_part(entity, chr(31), 1) AS symbol,
    timestamptz '1970-01-01Z' + event_time / 1000 * interval '1 microsecond' AS ts,
    event_time, sequence, nullif(fields[1], 'NaN') AS price, nullif(fields[2], 'NaN') AS size,
    nullif(features[1], 'NaN') AS current_price,
    timestamptz '1970-01-01Z' + known_at / 1000 * interval '1 microsecond' AS known_at
FROM tickwell.feature_rows
"""


def grown(directory: Path, more: str = MORE) -> Definitions:
    """The shipped file with more features."""
    file = directory / "grown.toml"
    file.write_text(SHIPPED.read_text() + more)
    return read(file)


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def columns(engine: Engine, view: str) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text(f"SELECT * FROM {view} LIMIT 0")).keys())


def test_a_view_shows_rows_as_people_expect(engine: Engine) -> None:
    recorded = record(engine, read(), "ann")
    insert = text(
        "INSERT INTO tickwell.feature_rows VALUES (:schema, :entity, 1700000000123456789, 0, 0, 1,"
        " NULL, 0, :fields, :features, :status, 2000, gen_random_uuid(), 0, 0, 0)"
    )
    with engine.begin() as connection:
        connection.execute(
            insert,
            {
                "schema": recorded.writing["position"],
                "entity": "P1\x1fAAPL",
                "fields": [-3.0, 1.0],
                "features": [-3.0, float("nan")],
                "status": b"\x00\x02",
            },
        )
    with engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM features.position")).mappings().one()
    assert (row["portfolio"], row["symbol"], row["quantity"]) == ("P1", "AAPL", -3)
    assert (row["position_size"], row["position_multiplier"]) == (-3, None)
    assert row["ts"] == datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)


def test_a_tick_that_is_in_two_row_schemas_is_one_row(engine: Engine, tmp_path: Path) -> None:
    """A replay stores it again in the newer one; that has the features of both."""
    first = record(engine, read(), "ann").writing["price"]
    second = record(engine, grown(tmp_path), "ann").writing["price"]
    insert = text(
        "INSERT INTO tickwell.feature_rows SELECT :schema, 'A', number, 0, 0, number, NULL, 0,"
        " ARRAY[1, 'NaN'::float8], :features, '', 0, gen_random_uuid(), 0, number, 0"
        " FROM generate_series(:begin, :end) AS number"
    )
    old, new = [1.0] * 4, [1.0] * 4 + [7.0]
    with engine.begin() as connection:
        for schema, features, begin, end in ((first, old, 1, 20), (second, new, 6, 30)):
            given = {"schema": schema, "features": features, "begin": begin, "end": end}
            connection.execute(insert, given)
        count = connection.execute(text("SELECT count(*), sum(price) FROM features.price")).one()
        means = connection.execute(
            text("SELECT a_mean FROM features.price ORDER BY event_time")
        ).scalars()
    assert tuple(count) == (30, 30)
    assert list(means) == [None] * 5 + [7.0] * 25


def test_what_people_have_built_on_a_view_stays(engine: Engine, tmp_path: Path) -> None:
    record(engine, read(), "ann")
    execute(
        engine,
        "CREATE VIEW public.mine AS SELECT symbol, price_sma_5 FROM features.price",
        "GRANT SELECT ON features.price TO PUBLIC",
        "ALTER VIEW features.price SET (security_barrier = true)",
    )
    kept = text(
        "SELECT oid, relacl::text, reloptions FROM pg_class WHERE oid = 'features.price'::regclass"
    )
    with engine.connect() as connection:
        before = connection.execute(kept).one()
    names = columns(engine, "features.price")
    record(engine, grown(tmp_path), "ann")
    with engine.connect() as connection:
        assert connection.execute(kept).one() == before
    assert columns(engine, "features.price") == [*names, "a_mean"]
    assert columns(engine, "public.mine") == ["symbol", "price_sma_5"]


def test_recording_the_same_again_waits_for_no_reader(engine: Engine) -> None:
    made = text("SELECT ev_class, xmin FROM pg_rewrite WHERE ev_class = 'features.price'::regclass")
    record(engine, read(), "ann")
    with engine.connect() as reader:
        reader.execute(text("SELECT * FROM features.price"))
        before = reader.execute(made).one()
        record(engine, read(), "ann")
        reader.rollback()
        assert reader.execute(made).one() == before


def test_a_change_waits_for_a_reader_only_so_long(engine: Engine, tmp_path: Path) -> None:
    limits = Limits(view_patience="100ms")
    before = record(engine, read(), "ann")
    with engine.connect() as reader:
        reader.execute(text("SELECT * FROM features.price"))
        told = r"features\.price was being read for longer than 100ms.* definitions are recorded"
        with pytest.raises(ViewBusy, match=told):
            record(engine, grown(tmp_path), "ann", limits=limits)
    recorded = catalog.load(engine)
    assert recorded != before
    assert columns(engine, "features.price")[-1] != "a_mean"
    assert record(engine, grown(tmp_path), "ann") == recorded
    assert columns(engine, "features.price")[-1] == "a_mean"


def test_a_view_made_with_other_columns_in_front_keeps_their_places(engine: Engine) -> None:
    execute(engine, OLD_LAYOUT, "CREATE VIEW public.mine AS SELECT * FROM features.price")
    before = columns(engine, "features.price")
    record(engine, read(), "ann")
    after = columns(engine, "features.price")
    assert after[: len(before)] == before == columns(engine, "public.mine")
    assert after[len(before) :] == ["entity", "price_sma_5", "price_sma_20", "price_volatility"]


@pytest.mark.parametrize(
    ("existing", "what"),
    [
        ("CREATE TABLE features.price (symbol text)", "is no view"),
        ("CREATE VIEW features.price AS SELECT 1 AS mine", "has the columns mine"),
        ("CREATE VIEW features.price AS SELECT 1 AS symbol", "cannot be extended"),
    ],
)
def test_what_tickwell_did_not_create_is_left_alone(
    engine: Engine, existing: str, what: str
) -> None:
    execute(engine, existing)
    with pytest.raises(NotOurView, match=what):
        record(engine, read(), "ann")
    execute(engine, "SELECT * FROM features.price")


def test_a_feature_that_is_no_longer_active_keeps_its_column(engine: Engine) -> None:
    record(engine, read(), "ann")
    before = columns(engine, "features.price")
    execute(engine, "DELETE FROM tickwell.active_versions WHERE name = 'price_sma_5'")
    views.create_views(engine)
    assert columns(engine, "features.price") == before


def test_names_that_are_words_of_sql(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "features.toml"
    file.write_text(
        """
        [[source]]
        name = "order"
        topic = "t"
        key = ["group", "user"]
        fields = [{ name = "xmin" }]

        [[feature]]
        name = "select"
        version = "1.0.0"
        source = "order"
        expression = "last(xmin)"
        """
    )
    for _ in range(2):
        record(engine, read(file), "ann")
    assert columns(engine, 'features."order"')[:3] == ["group", "user", "entity"]
    assert columns(engine, 'features."order"')[-1] == "select"


ROWS = text(
    """
    INSERT INTO tickwell.feature_rows
    SELECT :schema, format(:entity, i % 500), :at + i::bigint * 180000000000, 0, 0, 1, NULL, 0,
        array_fill(1.0::float8, ARRAY[2]), array_fill(1.0::float8, ARRAY[5]), '', 2000,
        gen_random_uuid(), 0, i, 0
    FROM generate_series(1, 10000) AS i
    """
)
KEYED = [
    "SELECT * FROM features.price WHERE symbol = 'S7'",
    "SELECT * FROM features.price WHERE symbol IN ('S7', 'S8')",
    "SELECT * FROM features.price WHERE symbol = 'S7' ORDER BY event_time DESC LIMIT 3",
    "SELECT * FROM features.position WHERE entity = 'P1' || chr(31) || 'S7'",
    "SELECT * FROM features.position WHERE entity LIKE 'P7' || chr(31) || '%'",
    "SELECT * FROM features.position WHERE entity = 'P1' || chr(31) || 'S7'"
    " ORDER BY event_time DESC LIMIT 3",
]


def plan(connection: Connection, query: str) -> list[dict[str, Any]]:
    """The nodes of a query's plan."""
    (found,) = connection.execute(text(f"EXPLAIN (FORMAT JSON) {query}")).scalar_one()
    nodes = [found["Plan"]]
    for node in nodes:
        nodes.extend(node.get("Plans", ()))
    return nodes


def test_queries_by_key_go_by_the_primary_key(engine: Engine, tmp_path: Path) -> None:
    attach_ahead(engine, datetime(2026, 11, 24, tzinfo=UTC))
    at = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp()) * 10**9

    def fill(recorded: Catalog) -> None:
        with engine.begin() as connection:
            for source, entity in (("price", "S%s"), ("position", "P%1$s\x1fS%1$s")):
                values = {"schema": recorded.writing[source], "entity": entity, "at": at}
                connection.execute(ROWS, values)
            connection.execute(text("ANALYZE tickwell.feature_rows"))

    def scanned(query: str) -> list[str]:
        """The partitions with rows that are read whole."""
        with engine.connect() as connection:
            return [
                node["Relation Name"]
                for node in plan(connection, query)
                if node["Node Type"] == "Seq Scan"
                and node["Relation Name"] in ("feature_rows_2026_11", "feature_rows_2026_12")
            ]

    fill(record(engine, read(), "ann"))
    assert scanned("SELECT * FROM features.price") != []
    assert [scanned(query) for query in KEYED] == [[]] * len(KEYED)
    with engine.connect() as connection:
        for query in KEYED:
            if "ORDER BY" in query:
                assert "Sort" not in [node["Node Type"] for node in plan(connection, query)]
    more = MORE + MORE.replace("a_mean", "held").replace('"price"', '"position"').replace(
        "price,", "quantity,"
    )
    fill(record(engine, grown(tmp_path, more), "ann"))
    assert [scanned(query) for query in KEYED] == [[]] * len(KEYED)
