"""What folders and columns of the lake are called."""

from __future__ import annotations

from datetime import date

import pytest
from msgspec import structs

from registry.consistency import check_against
from registry.definitions import Catalog, Definitions
from registry.errors import DefinitionError
from registry.formats.lake import day_number, day_of, file_path, tick_columns, value_column
from tests.support.shipped import SOURCE

NOTHING = Catalog({}, {}, {}, {}, {})


@pytest.mark.parametrize("name", ["true", "false", "inf", "nan", "null"])
def test_a_source_whose_folder_is_no_text_is_refused_unless_it_is_recorded(name: str) -> None:
    source = structs.replace(SOURCE, name=name)
    definitions = Definitions((source,), (), "features.toml")
    with pytest.raises(DefinitionError, match=f"source {name}: .*name it {name}_ticks"):
        check_against(NOTHING, definitions, None)
    check_against(structs.replace(NOTHING, sources={name: source}), definitions, None)


def test_days_are_numbered_as_event_times_are() -> None:
    for number in (-1, 0, 20_781):
        assert day_number(day_of(number)) == number
    assert day_of(-1) == date(1969, 12, 31)


def test_where_a_file_is() -> None:
    assert str(file_path("price", 1, date(2026, 11, 24))) == (
        "rows/source=price/schema=1/day=2026-11-24/part-0.parquet"
    )


def test_no_column_of_a_source_is_taken_for_one_of_the_lake() -> None:
    assert value_column("price_sma_5@1.0.12") == "price_sma_5__v1_0_12"
    found = tick_columns(["symbol", "index", "day", "revision"])
    assert list(found.values()) == ["symbol", "index_", "day_", "revision_"]
