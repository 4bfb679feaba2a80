"""A features file is applied, and what it adds is backfilled, with real topics."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.backfills import blocks
from tests.support.pipeline import Pipeline
from tests.support.replays import live, produce
from tests.support.sinks import query

NEW = "price_sma_5@2.0.0"
ADDED = """
[[feature]]
name = "price_sma_5"
version = "2.0.0"
parent = "1.0.0"
expression = "mean(price, 6)"
"""


def test_a_file_is_applied_with_its_backfill(running: Pipeline, tmp_path: Path) -> None:
    produce(running, 400)
    live(running)
    file = tmp_path / "added.toml"
    file.write_text(running.run_tickwell("features", "export") + ADDED)
    arguments = ("--features", str(file), "--yes", "--backfill")
    assert "applied" in running.run_tickwell("features", "apply", *arguments)
    told = json.loads(running.run_tickwell("backfill", NEW, "--json"))
    (stored,) = query(running.settings.postgres, "SELECT count(*) FROM tickwell.feature_rows")
    assert (told["state"], told["ticks"]) == ("complete", *stored)
    assert len(blocks(running.settings.postgres, NEW)) == told["ticks"] > 0
