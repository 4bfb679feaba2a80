"""A features file after another: what stays, what comes beside it, what does not go together."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from registry import catalog
from registry.database import migrations
from registry.errors import DefinitionError, NewerRegistry, RegistryEmpty
from registry.features_file import read
from registry.lifecycle.recording import Limits, record, remarks
from tests.support.shipped import SHIPPED, changed

OTHER = """
[[source]]
name = "other"
topic = "ticks.other"
key = ["symbol"]
fields = [{ name = "value" }]

[[feature]]
name = "last_other"
version = "1.0.0"
source = "other"
expression = "last(value)"
"""


def edited_in_place(directory: Path) -> Path:
    """The shipped file with another price_sma_5 instead of the old one."""
    sma = 'name = "price_sma_5"\nversion = "{}"\nsource = "price"\nexpression = "mean(price, {})"'
    return changed(directory, sma.format("1.0.0", 5), sma.format("1.1.0", 6))


def test_a_version_edited_in_place_leaves_the_active_one_alive(
    engine: Engine, tmp_path: Path
) -> None:
    """The file knows only 1.1.0 now; 1.0.0 is active, so it has to be computed on."""
    before = record(engine, read(), "ann")
    edited = read(edited_in_place(tmp_path))
    after = record(engine, edited, "ann")
    assert after.active == before.active
    written = after.schemas[after.writing["price"]].features
    assert written == (*before.schemas[before.writing["price"]].features, "price_sma_5@1.1.0")
    assert remarks(after, edited) == [
        "price_sma_5: 1.0.0 is active and stays active, although the file does not declare it; "
        "also recorded: 1.1.0"
    ]
    assert record(engine, read(), "ann") == after
    assert remarks(before, read()) == []


def test_an_active_version_that_is_not_written_is_written_again(
    engine: Engine, tmp_path: Path
) -> None:
    before = record(engine, read(), "ann")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO tickwell.row_schemas (source, features)"
                " VALUES ('price', '{current_price@1.0.0}')"
            )
        )
    after = record(engine, read(edited_in_place(tmp_path)), "ann")
    written = after.schemas[after.writing["price"]].features
    assert set(written) > set(before.schemas[before.writing["price"]].features)


def test_the_order_of_the_file_means_nothing(engine: Engine, tmp_path: Path) -> None:
    before = record(engine, read(), "ann")
    head, *features = SHIPPED.read_text().split("[[feature]]")
    preamble, *sources = head.split("[[source]]")
    turned = "[[source]]".join([preamble, *sources[::-1]])
    file = tmp_path / "features.toml"
    file.write_text("[[feature]]".join([turned, *features[::-1]]))
    assert record(engine, read(file), "ann") == before


MAPPED = """
items = "data"
where = { "^e" = ["t", "u"], live = true }
[source.map]
value = { path = "p", scale = 1e-9 }
symbol = "s"
"""
REWRITTEN = """
items = '"data"'
[source.map]
symbol = { path = "s" }
ts = "ts"
value = { path = "p", scale = 1e-9 }
[source.where]
live = [true]
'^"e"' = ["u", "t"]
"""


def test_a_source_that_is_written_otherwise_is_the_same(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    fields = 'fields = [{ name = "value" }]\n'
    file.write_text(OTHER.replace(fields, fields + MAPPED))
    before = record(engine, read(file), "ann")
    file.write_text(OTHER.replace(fields, fields + REWRITTEN))
    assert record(engine, read(file), "ann") == before
    file.write_text(OTHER.replace(fields, fields + MAPPED.replace("live = true", "live = 1")))
    with pytest.raises(DefinitionError) as refused:
        record(engine, read(file), "ann")
    assert 'where `{ "^e" = ["t", "u"], "live" = true }` would become' in str(refused.value)


def test_a_row_holds_only_so_many_features(engine: Engine) -> None:
    with pytest.raises(DefinitionError, match=r"source price: would have 4 .* may have 3"):
        record(engine, read(), "ann", limits=Limits(features_in_row=3))


def test_rewording_is_recorded(engine: Engine, tmp_path: Path) -> None:
    before = record(engine, read(), "ann")
    file = changed(tmp_path, 'aliases = ["volatility"]', 'aliases = ["volatility", "sigma"]')
    after = record(engine, read(file), "bob")
    assert after.features["price_volatility@1.0.0"].aliases == ("volatility", "sigma")
    assert after.writing == before.writing
    last = text("SELECT actor, action, subject FROM tickwell.audit ORDER BY id DESC LIMIT 1")
    with engine.connect() as connection:
        found = tuple(connection.execute(last).one())
    assert found == ("bob", "reword version", "price_volatility@1.0.0")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("ticks.other", "ticks.price", "source price reads the topic ticks.price already"),
        ("ticks.other", "nowhere", "reads nowhere, where rejected ticks are published"),
        ("last_other", "volatility", "volatility names both price_volatility and volatility"),
        ('version = "1.0.0"', 'version = "1.0.0"\naliases = ["price_sma_5"]', "names both"),
        (
            'last_other"\nversion = "1.0.0"',
            'position_size"\nversion = "2.0.0"',
            r"1\.0\.0 is computed from ticks, of \(portfolio, symbol\), and version 2\.0\.0",
        ),
        (
            'last_other"\nversion = "1.0.0"',
            'price_sma_5"\nversion = "1.0.0"',
            r"expression `mean\(price, 5\)` would become `last\(value\)`",
        ),
    ],
)
def test_a_file_must_go_together_with_what_is_recorded(
    engine: Engine, tmp_path: Path, old: str, new: str, what: str
) -> None:
    """The file holds only what is new, and is right in itself."""
    before = record(engine, read(), "ann", "ticks.rejected")
    file = tmp_path / "other.toml"
    assert old in OTHER
    file.write_text(OTHER.replace(old, new))
    with pytest.raises(DefinitionError, match=what) as error:
        record(engine, read(file), "ann", "nowhere")
    assert str(file) in str(error.value)
    assert catalog.load(engine) == before
    file.write_text(OTHER)
    record(engine, read(file), "ann", "ticks.rejected")


def test_a_recorded_source_may_not_read_rejected_ticks_either(engine: Engine) -> None:
    record(engine, read(), "ann", "ticks.rejected")
    with pytest.raises(DefinitionError, match=r"source price: reads ticks\.price, where"):
        record(engine, read(), "ann", "ticks.price")


def test_a_worker_does_not_begin_to_read_what_it_publishes(
    engine: Engine, postgres_database: str
) -> None:
    """Its setting may be another one than the migration's."""
    record(engine, read(), "ann")
    nowhere = "redis://127.0.0.1:1/0"
    settings = {
        "TICKWELL_KAFKA": "127.0.0.1:1",
        "TICKWELL_REDIS": nowhere,
        "TICKWELL_REDIS_HOT": nowhere,
        "TICKWELL_POSTGRES": postgres_database,
        "TICKWELL_REJECTED_TOPIC": "ticks.price",
    }
    worker = subprocess.run(
        [sys.executable, "-m", "tickwell", "worker", "--sink", "offline"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert worker.returncode == 1
    assert "source price: reads ticks.price, where rejected ticks" in worker.stderr
    assert "Traceback" not in worker.stderr


def test_several_files_are_recorded_at_once(engine: Engine, tmp_path: Path) -> None:
    """The second one sees what the first has recorded."""
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(OTHER)
    two.write_text(
        OTHER.replace("last_other", "mean_other").replace("last(value)", "mean(value, 2)")
    )
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda file: record(engine, read(file), "ann"), (None, one, two)))
    recorded = catalog.load(engine)
    assert len(recorded.features) == len(read().features) + 2
    written = recorded.schemas[recorded.writing["other"]].features
    assert sorted(written) == ["last_other@1.0.0", "mean_other@1.0.0"]


def test_an_older_tickwell_leaves_a_newer_registry_alone(engine: Engine) -> None:
    recorded = record(engine, read(), "ann")
    newer = (
        'UPDATE tickwell.feature_versions SET definition = definition || \'{"currency": "USD"}\''
        " WHERE name = 'price_sma_5'"
    )
    with engine.begin() as connection:
        connection.execute(text(newer.replace(":", r"\:")))
    with pytest.raises(NewerRegistry, match=r"price_sma_5.*currency"):
        catalog.load(engine)
    with pytest.raises(NewerRegistry, match=r"price_sma_5.*currency"):
        record(engine, read(), "ann")
    with pytest.raises(NewerRegistry):
        catalog.decode(catalog.encode(recorded).replace(b'"expression"', b'"formula"'))
    with engine.begin() as connection:
        connection.execute(text("UPDATE tickwell.alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerRegistry, match=r"9999.*use that one"):
        migrations.upgrade(engine)


def test_a_database_that_was_never_migrated_holds_no_features(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA tickwell CASCADE"))
    with pytest.raises(RegistryEmpty, match="tickwell migrate"):
        catalog.load(engine)
