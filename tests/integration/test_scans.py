"""Ticks that are read in a scan in place of look-ups: when, and that the answers are the same."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from registry.database.engine import connect
from registry.formats.row import ValueStatus
from serving.history.entity_rows import EntityRows
from serving.history.snapshot import ROW_BYTES, ScanLimits
from tests.support.past import ALWAYS, Cell, asked, cells, joining
from tests.support.rebuilds import Stores

FEATURES = ["current_price", "price_sma_5"]
FIRST, STEP, ROWS = 1_700_000_000 * 10**9, 10**9, 9_000
SOME = ScanLimits(fewest_questions=100)
INSERT = """
INSERT INTO tickwell.feature_rows
SELECT
    %(schema)s, %(entity)s, %(first)s + (i / %(ties)s)::bigint * %(step)s, i %% %(ties)s, 0, i,
    NULL, 0, ARRAY[i, 'NaN'::float8], array_fill(i::float8, ARRAY[%(features)s]), %(ok)s,
    %(first)s + (i / %(ties)s)::bigint * %(step)s
        + CASE WHEN (i / %(block)s) %% 2 = 0 THEN 0 ELSE %(late)s END,
    '00000000-0000-0000-0000-000000000001', 0, i, 0
FROM generate_series(0, %(rows)s - 1) AS i
"""


def fill(stores: Stores, entity: str, rows: int, block: int, late: int, ties: int = 1) -> None:
    """Rows at each second; of blocks of them every second one became known later."""
    schema = stores.catalog.schemas[stores.catalog.writing["price"]]
    values = {
        "schema": schema.id,
        "entity": entity,
        "first": FIRST,
        "step": STEP,
        "ties": ties,
        "features": len(schema.features),
        "ok": bytes([ValueStatus.OK] * len(schema.features)),
        "block": block,
        "late": late,
        "rows": rows,
    }
    engine = connect(stores.postgres)
    with engine.begin() as connection:
        connection.exec_driver_sql(INSERT, values)
        connection.exec_driver_sql(
            "INSERT INTO tickwell.entities VALUES ('price', %(entity)s,"
            " '00000000-0000-0000-0000-000000000001', 0) ON CONFLICT DO NOTHING",
            values,
        )
    engine.dispose()


def questions(chance: random.Random, entities: Sequence[str], n: int) -> EntityRows:
    moments = [
        FIRST + chance.randrange(-10, ROWS + 10) * STEP + chance.choice([-1, 0, 1])
        for _ in range(n)
    ]
    return asked(moments, symbol=[chance.choice(entities) for _ in moments])


def answers(
    stores: Stores, rows: EntityRows, scans: ScanLimits, row_bytes: int = ROW_BYTES
) -> tuple[list[list[Cell]], str]:
    with joining(stores.postgres, FEATURES, row_bytes, scans) as join:
        found = [cells(column) for column in join.columns(rows).values()]
        return found, join.plans["price"]


NEVER = ScanLimits(fewest_questions=2**62)


def test_what_was_loaded_later_is_stepped_over(stores: Stores) -> None:
    """Over blocks of rows that nobody knew yet: short ones, long ones, and all of an entity's."""
    chance = random.Random(5)
    fill(stores, "A", ROWS, 300, 10**15)
    fill(stores, "B", ROWS, 5_000, 10**15)
    fill(stores, "C", ROWS, 70, 100 * STEP)
    fill(stores, "D", ROWS, 1, 10**15)
    rows = questions(chance, ["A", "B", "C", "D", "nobody"], 3_000)
    looked_up, plan = answers(stores, rows, NEVER)
    assert plan == "lateral"
    assert {status for _, status, _ in looked_up[0]} >= {"missing", "stale"}
    for row_bytes in (ROW_BYTES, 60_000):
        assert answers(stores, rows, ALWAYS, row_bytes) == (looked_up, "scan")


@pytest.mark.parametrize("n", [10, 10_000])
def test_of_equal_times_the_last_tick_counts(stores: Stores, n: int) -> None:
    """For few rows and for many, whichever way they are read."""
    ties = 9
    fill(stores, "A", 900, 1, 0, ties)
    chance = random.Random(n)
    seconds = [chance.randrange(900 // ties) for _ in range(n)]
    rows = asked([FIRST + second * STEP for second in seconds], symbol=["A"] * n)
    expected = [float(second * ties + ties - 1).hex() for second in seconds]
    for scans in (NEVER, ALWAYS):
        (prices, _), _ = answers(stores, rows, scans)
        assert [bits for bits, _, _ in prices] == expected


def test_a_scan_is_chosen_where_questions_are_many(stores: Stores) -> None:
    chance = random.Random(5)
    for entity in "AB":
        fill(stores, entity, ROWS, 1, 0)
    stores.execute("ANALYZE tickwell.feature_rows")
    many, few = questions(chance, "AB", 9_000), questions(chance, "AB", 2_000)
    found, plan = answers(stores, many, SOME)
    assert plan == "scan"
    assert answers(stores, many, NEVER) == (found, "lateral")
    assert answers(stores, few, SOME)[1] == "lateral"
    assert answers(stores, many, ScanLimits())[1] == "lateral"
    at_once = asked([FIRST + 5 * STEP] * 9_000, symbol=["A"] * 9_000)
    assert answers(stores, at_once, SOME)[1] == "lateral"


def test_statistics_that_are_wrong_change_no_answer(stores: Stores) -> None:
    """There are 100 times as many rows as Postgres believes: what does not fit is looked up."""
    chance = random.Random(5)
    fill(stores, "A", 90, 1, 0)
    stores.execute("ANALYZE tickwell.feature_rows")
    stores.execute("DELETE FROM tickwell.feature_rows")
    fill(stores, "A", ROWS, 3, 50 * STEP)
    rows = questions(chance, ["A"], 2_000)
    found, plan = answers(stores, rows, ScanLimits(100), row_bytes=100_000)
    assert (found, "lateral") == answers(stores, rows, NEVER)
    assert plan == "scan"
