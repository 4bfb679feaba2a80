"""What an earlier build has recorded: completed where it can be, and told where it cannot."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from registry import catalog
from registry.errors import (
    DefinitionError,
    OldRegistry,
)
from registry.features_file import read
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from tests.support.lifecycles import OLD, SMA


def test_pins_that_an_earlier_build_has_not_recorded_are_what_was_active(engine: Engine) -> None:
    record(engine, read(), "ann")
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE tickwell.feature_versions SET digest = NULL, identity = NULL,"
                " definition = definition - 'parts' - 'parent' - 'unit'"
            )
        )
    assert catalog.load(engine).features["portfolio_exposure@1.0.0"].parts == ()
    known = record(engine, read(), "ann")
    assert known.features["portfolio_exposure@1.0.0"].pins["current_price"] == "current_price@1.0.0"
    with engine.connect() as connection:
        lacking = "SELECT count(*) FROM tickwell.feature_versions WHERE digest IS NULL"
        assert connection.execute(text(lacking)).scalar() == 0


def test_what_an_earlier_build_has_left_is_completed(registry: Registry) -> None:
    """Pins before any name moves, and what views and searches look up."""
    with registry.engine.begin() as connection:
        for statement in (
            "UPDATE tickwell.feature_versions SET digest = NULL, identity = NULL,"
            " definition = definition - 'parts' - 'parent' - 'unit'",
            "DELETE FROM tickwell.active_columns",
            "DELETE FROM tickwell.search_documents",
            "CREATE OR REPLACE FUNCTION tickwell.is_row_schema(source text, schema_id integer)"
            " RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT false'",
        ):
            connection.execute(text(statement))
    registry.complete()
    exposure = registry.catalog().features["portfolio_exposure@1.0.0"]
    assert exposure.pins["current_price"] == "current_price@1.0.0"
    assert [hit.name for hit in registry.search(SMA).features][:1] == [SMA]
    with registry.engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT tickwell.is_row_schema('price', id) FROM tickwell.row_schemas"
                " WHERE source = 'price'"
            )
        )
        assert set(found.scalars()) == {True}
        columns = connection.execute(text("SELECT count(*) FROM tickwell.active_columns")).scalar()
        assert columns > 0
    before = registry.known()
    registry.complete()
    assert registry.known() == before


def test_the_first_change_of_a_name_pins_what_it_meant(registry: Registry) -> None:
    registry.create_feature_version("current_price", "2.0.0", {"max_age": "5s"}, "1.0.0")
    with registry.engine.begin() as connection:
        connection.execute(
            text("UPDATE tickwell.feature_versions SET definition = definition - 'parts'")
        )
    registry.activate("current_price@2.0.0")
    exposure = registry.catalog().features["portfolio_exposure@1.0.0"]
    assert exposure.pins["current_price"] == "current_price@1.0.0"


def test_tables_of_an_earlier_build_are_told(registry: Registry) -> None:
    with registry.engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE tickwell.feature_versions DROP COLUMN deprecated_at CASCADE")
        )
    for ask in (registry.catalog, lambda: registry.history(SMA), lambda: registry.activate(OLD)):
        with pytest.raises(OldRegistry, match="tickwell migrate"):
            ask()


def test_names_that_an_earlier_build_took_stay(registry: Registry) -> None:
    """What is new may not be so near to another one."""
    like = {"expression": "mean(price, 3)", "source": "price"}
    with pytest.raises(DefinitionError, match="differ only in `_`"):
        registry.create_feature_version("pricesma_5", "1.0.0", like)
    registry.create_feature_version("other_sma", "1.0.0", like)
    with registry.engine.begin() as connection:
        connection.execute(text("DROP VIEW features.price"))  # it has the other name
        for table, column in (("feature_versions", "name"), ("active_versions", "name")):
            connection.execute(
                text(
                    f"UPDATE tickwell.{table} SET {column} = 'pricesma_5'"
                    f" WHERE {column} = 'other_sma'"
                )
            )
        connection.execute(
            text(
                "UPDATE tickwell.feature_versions SET definition = jsonb_set(definition, '{name}',"
                " '\"pricesma_5\"') WHERE name = 'pricesma_5'"
            )
        )
        connection.execute(
            text(
                "UPDATE tickwell.row_schemas SET features ="
                " array_replace(features, 'other_sma@1.0.0', 'pricesma_5@1.0.0')"
            )
        )
    registry.create_feature_version("pricesma_5", "2.0.0", {"unit": "USD"}, "1.0.0")
