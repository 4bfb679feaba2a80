"""`tickwell verify`: what it says, what it ends with, and the line that explains a difference."""

from __future__ import annotations

import json
import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from registry.comparisons import Difference, Kind, Place
from tests.support.file_loads import as_csv, load_files, loaded_rows, ticks
from tests.support.grown_market import grown
from tests.support.rebuilds import Stores
from tests.support.sinks import query
from tickwell.commands.verify import lines


def run(stores: Stores, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "TICKWELL_POSTGRES": stores.postgres,
        "TICKWELL_REDIS": stores.redis_url,
        "PATH": "",
        "TICKWELL_DATA": "/nonexistent",
        **more,
    }
    return subprocess.run(
        [sys.executable, "-m", "tickwell", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_what_is_the_same_ends_with_0_and_a_difference_with_1(stores: Stores) -> None:
    grown(stores, random.Random(3))
    same = run(stores, "verify", "--full", "--json")
    assert same.returncode == 0, same.stderr
    found = json.loads(same.stdout)
    assert found["same"] is True
    assert set(found["places"]) == {"rows", "blocks", "redis"}
    assert all(place["values"] for place in found["places"].values())
    rows = query(
        stores.postgres,
        "SELECT event_time, sequence FROM tickwell.feature_rows WHERE entity = 'C'"
        " AND get_byte(status, 0) = 0 ORDER BY 1, 2",
    )
    time, sequence = rows[3]
    stores.execute(
        "UPDATE tickwell.feature_rows SET features[1] = 123.25 WHERE entity = 'C'"
        f" AND event_time = {time} AND sequence = {sequence}"
    )
    nothing = run(stores, "verify", "--since", "1d")
    assert "rows of Postgres, recomputed from raw fields: 0 compared" in nothing.stderr
    different = run(stores, "verify", "--full", "--no-throttle", "--since", "36000d")
    assert different.returncode == 1
    assert "rows: value of current_price@1.0.0 of C in price at " in different.stderr
    assert "found    123.25 (0x1.ed00000000000p+6), ok" in different.stderr
    told = next(line for line in different.stderr.splitlines() if "tickwell explain" in line)
    explained = run(stores, *shlex.split(told.strip())[1:])
    assert explained.returncode == 1
    assert "DIFFERS: 123.25 (0x1.ed00000000000p+6), ok" in explained.stdout


def test_a_sample_is_drawn_again_by_its_seed(stores: Stores) -> None:
    grown(stores, random.Random(3))
    first = run(stores, "verify", "--sample", "2")
    assert first.returncode == 0, first.stderr
    seed = first.stderr.rpartition("--seed ")[2].split(",")[0]
    again = run(stores, "verify", "--sample", "2", "--seed", seed, "--json")
    compared = sum(p["values"] for p in json.loads(again.stdout)["places"].values())
    assert f"the same: {compared:,} values of a sample of 2" in first.stderr


def test_it_ends_with_2_where_it_could_not_look(stores: Stores, tmp_path: Path) -> None:
    assert run(stores, "verify").returncode == 2  # there is nothing to compare
    grown(stores, random.Random(3))
    away = run(stores, "verify", TICKWELL_REDIS="redis://127.0.0.1:1/0")
    assert away.returncode == 2, away.stderr
    assert "rows of Redis, against those of the same ticks: could not look" in away.stderr
    assert "rows of Postgres, recomputed from raw fields: " in away.stderr
    gone = run(stores, "verify", TICKWELL_POSTGRES="postgresql://127.0.0.1:1/none")
    assert gone.returncode == 2
    late = run(stores, "verify", "--since", "2999-01-01T00:00:00Z")
    assert (late.returncode, "--since" in late.stderr) == (2, True)
    assert run(stores, "verify", "--full", "--sample", "3").returncode == 2
    both = run(stores, "verify", "--full", "--forget")
    assert (both.returncode, "it goes alone" in both.stderr) == (2, True)
    forgotten = run(stores, "verify", "--forget")
    assert (forgotten.returncode, "forgotten: 0 differences" in forgotten.stderr) == (0, True)


def test_rows_that_were_loaded_are_told_and_not_looked_at(stores: Stores, tmp_path: Path) -> None:
    grown(stores, random.Random(3))
    load_files(stores.postgres, [as_csv(tmp_path, ticks(100, symbols="XYZ"))])
    number = len(loaded_rows(stores.postgres))
    found = run(stores, "verify", "--full", "--json")
    assert (found.returncode, json.loads(found.stdout)["loaded"]) == (0, number)
    assert f"rows that were loaded from files: {number} not looked at" in found.stderr


@pytest.mark.parametrize("entity", ["A", "it's A", "EUR/USD"])
def test_a_difference_is_told_with_the_line_that_explains_it(entity: str) -> None:
    one = Difference(
        *(Place.ROWS, Kind.VALUE, "price", (entity,), 1_700_000_000_000_000_001, 2, "f@1", "1", "2")
    )
    told = lines(one)[-1].strip()
    wanted = ["tickwell", "explain", entity, "f@1", "--tick", "2023-11-14T22:13:20.000000001Z.2"]
    assert shlex.split(told) == wanted
    assert not any("tickwell" in line for line in lines(one._replace(feature=None)))
