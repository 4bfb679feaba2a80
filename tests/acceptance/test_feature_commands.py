"""`tickwell features` as a person and a script use it: a change is seen, made, and taken back."""

from __future__ import annotations

import json
import tomllib
import uuid
from pathlib import Path
from typing import Any

import pytest

from pipelines.kafka.topics import existing
from registry.database.engine import connect
from registry.features_file import text_of
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from tests.support.pipeline import Pipeline

OLD, NEW = "price_sma_5@1.0.0", "price_sma_5@2.0.0"
ADDED = """
[[feature]]
name = "price_sma_5"
version = "2.0.0"
parent = "1.0.0"
expression = "mean(price, 6)"
unit = "USD"

[[feature]]
name = "price_sma_50"
version = "1.0.0"
source = "price"
expression = "mean(price, 50)"
owner = "desk"

[[set]]
name = "momentum"
version = "1"
features = ["price_sma_5", "price_sma_20"]
"""


@pytest.fixture
def added(running: Pipeline, tmp_path: Path) -> Path:
    """The recorded file with what is new."""
    file = tmp_path / "added.toml"
    file.write_text(running.run_tickwell("features", "export") + ADDED)
    return file


def told(running: Pipeline, *arguments: str) -> Any:
    return json.loads(running.run_tickwell("features", *arguments, "--json"))


def state(running: Pipeline, ref: str) -> str:
    found: str = told(running, "show", ref)["state"]
    return found


NEW_SOURCE = """
[[source]]
name = "book"
topic = "{topic}"
key = ["symbol"]
fields = [{{ name = "bid" }}]

[[feature]]
name = "best_bid"
version = "1.0.0"
source = "book"
expression = "last(bid)"
"""


def test_an_apply_that_was_killed_before_it_made_topics_is_repeated(
    running: Pipeline, tmp_path: Path
) -> None:
    """What was recorded is not new any more; its topic is made all the same."""
    topic, file = f"ticks.book.{uuid.uuid4().hex}", tmp_path / "book.toml"
    text = running.run_tickwell("features", "export") + NEW_SOURCE.format(topic=topic)
    file.write_text(text)
    engine = connect(running.settings.postgres)
    Registry(engine, By("ann")).apply(text_of(file))
    engine.dispose()
    assert existing(running.settings.kafka_connection, [topic]) == {}
    said = running.run_tickwell("features", "apply", "--features", str(file), "--yes")
    assert "nothing is new" in said
    assert topic in existing(running.settings.kafka_connection, [topic])


def test_a_change_is_planned_applied_and_taken_back(
    running: Pipeline, added: Path, tmp_path: Path
) -> None:
    saved = str(tmp_path / "plan.json")
    page = running.run_tickwell("features", "plan", "--features", str(added), "--out", saved)
    assert page.startswith("plan of serial ")
    assert f"+ {NEW} (standby) mean(price, 6), of price" in page
    assert "expression: `mean(price, 5)` in price_sma_5@1.0.0, here `mean(price, 6)`" in page
    assert "+ price_sma_50@1.0.0 (active)" in page
    assert "+ set:momentum@1" in page
    assert "rows of price: 4 -> 6 versions" in page
    assert f"price_sma_5 still means {OLD} until {NEW} is activated" in page
    assert NEW in running.refused("features", "show", NEW)

    assert "applied" in running.run_tickwell("features", "apply", saved, "--note", "for the model")
    assert "nothing is new" in running.run_tickwell("features", "plan", "--features", str(added))
    assert "the registry has changed since" in running.refused("features", "apply", saved)
    assert (state(running, NEW), state(running, "price_sma_50")) == ("recorded", "active")

    assert "price_sma_5 means 2.0.0 now" in running.run_tickwell("features", "activate", NEW)
    assert [one["version"] for one in told(running, "history", "price_sma_5")] == ["2.0.0", "1.0.0"]
    assert "price_sma_5 means 1.0.0 now" in running.run_tickwell(
        "features", "rollback", "price_sma_5", "--note", "the backtest disagrees"
    )
    audit = running.run_tickwell("features", "audit", "price_sma_5")
    assert "the backtest disagrees" in audit
    assert "for the model" in audit
    assert "of price, not written yet" in audit
    pinned = told(running, "audit", NEW)
    assert {one["subject"] for one in pinned if one["action"] == "record version"} == {NEW}

    running.run_tickwell("features", "use", "set:momentum@1", "--model", "momentum-net")
    lineage = running.run_tickwell("features", "lineage", "price_sma_5")
    assert "set set:momentum@1 -> model momentum-net" in lineage
    assert "is active" in running.refused("features", "deprecate", OLD)
    running.run_tickwell("features", "deprecate", NEW, "--replacement", OLD)
    assert f"take {OLD}" in running.run_tickwell("features", "retire", NEW)
    assert "retired since" in running.refused("features", "activate", NEW)


def test_what_a_script_sees(running: Pipeline, added: Path) -> None:
    file = ("--features", str(added))
    assert "nobody can be asked here" in running.refused("features", "apply", *file)
    planned = told(running, "plan", *file)
    assert planned["serial"] > 0
    assert [one["ref"] for one in planned["values"]] == [one["ref"] for one in planned["new"]]
    assert told(running, "plan", *file, "--no-values")["values"] == []
    page = told(running, "apply", *file, "--yes")
    assert [one["ref"] for one in page["new"]] == [NEW, "price_sma_50@1.0.0"]
    assert told(running, "apply", *file, "--yes")["new"] == []
    listed = {one["version"] for one in told(running, "list", "--all") if "sma_5" in one["name"]}
    assert listed == {"1.0.0", "2.0.0"}
    assert {one["version"] for one in told(running, "list")} == {"1.0.0"}
    assert told(running, "activate", NEW) == {"name": "price_sma_5", "version": "2.0.0"}
    differing = {one["setting"]: one["now"] for one in told(running, "diff", OLD, NEW)}
    assert differing == {"expression": "mean(price, 6)", "unit": "USD"}
    assert "price_sma_50" in running.run_tickwell("features", "list")
    exported = tomllib.loads(running.run_tickwell("features", "export", "price_sma_5"))
    assert [one["version"] for one in exported["feature"]] == ["1.0.0", "2.0.0"]


def test_another_history_is_planned_and_applied(running: Pipeline, tmp_path: Path) -> None:
    """Without `migrate --from-now`: it is no rule."""
    file, line = tmp_path / "longer.toml", 'name = "price"\n'
    given = running.run_tickwell("features", "export")
    file.write_text(given.replace(line, line + "history = 4096\n", 1))
    page = running.run_tickwell("features", "plan", "--features", str(file))
    assert "history of price: 1,024 -> 4,096 ticks of an entity, about " in page
    assert "nothing is new" not in page
    assert "refused" not in page
    assert "not recorded: `history = 4096` of the source price" in running.run_tickwell(
        "migrate", "--features", str(file)
    )
    applied = running.run_tickwell("features", "apply", "--features", str(file), "--yes")
    assert "applied; workers and servers follow within a second" in applied
    assert "history = 4096" in running.run_tickwell("features", "export")
    file.write_text(given.replace(line, line + "history = 4\n", 1))
    assert "history 4 must be 64 to 65536" in running.refused(
        "features", "plan", "--features", str(file)
    )


def test_what_is_wrong_is_told_in_a_line(running: Pipeline, tmp_path: Path) -> None:
    for arguments, what in (
        (("show", "nothing"), "there is no feature 'nothing'"),
        (("show", "price_sma_6"), "near it are price_sma_5"),
        (("activate", "price_sma_5"), "price_sma_5"),
        (("rollback", "price_sma_5"), "had no other version before 1.0.0"),
        (("retire", OLD), "is active: deprecate it first"),
        (("use", "set:x@1", "--model", "m"), "there is no set set:x@1"),
        (("plan", "--features", str(tmp_path / "none.toml")), "cannot be read"),
        (("apply", str(tmp_path / "none.json")), "No such file"),
    ):
        assert what in running.refused("features", *arguments)
    strange = tmp_path / "plan.json"
    strange.write_text('{"format": 2}')
    assert "not a plan of this version" in running.refused("features", "apply", str(strange))


def test_migrate_records_a_file_once_and_compares_it_later(running: Pipeline, added: Path) -> None:
    """A file that says more is no change yet; one that contradicts is refused."""
    before = told(running, "list", "--all")
    said = running.run_tickwell("migrate", "--features", str(added))
    assert "tickwell features plan" in said
    assert told(running, "list", "--all") == before
    added.write_text(added.read_text().replace('"mean(price, 5)"', '"mean(price, 4)"'))
    assert "a version never changes" in running.refused("migrate", "--features", str(added))
