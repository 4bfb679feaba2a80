"""What a change of the registry reads and writes, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from msgspec import structs
from sqlalchemy import event, text

from registry import catalog
from registry.definitions import Arm, Catalog, Experiment
from registry.errors import DefinitionError, NotAllowed
from registry.features_file import Text, read
from registry.lifecycle.new_versions import DeclaredVersion
from registry.lifecycle.recording import Limits, record
from registry.lifecycle.registry import Registry
from tests.support.lifecycles import MOMENTUM, NEW, NEWER, OLD, SMA

VERSIONS = [
    DeclaredVersion(SMA, "2.0.0", NEWER, "1.0.0"),
    DeclaredVersion(SMA, "3.0.0", {"max_age": "5s"}, "2.0.0"),
    DeclaredVersion("volume_sma_3", "1.0.0", {"expression": "mean(volume, 3)", "source": "volume"}),
]

CHANGES: list[Callable[[Registry], Catalog]] = [
    lambda registry: registry.record_versions(VERSIONS)[0],
    lambda registry: registry.activate(NEW),
    lambda registry: registry.roll_back(SMA),
    lambda registry: registry.apply(Text("sets.toml", registry.export() + MOMENTUM)),
    lambda registry: registry.use("set:momentum@1", "net"),
    lambda registry: registry.start_experiment(
        Experiment("trial", SMA, (Arm("a", "1.0.0", 1), Arm("b", "2.0.0", 1)))
    ),
    lambda registry: registry.stop_experiment("trial", "b"),
    lambda registry: registry.deprecate(OLD, NEW),
    lambda registry: registry.activate(OLD),
    lambda registry: registry.apply(
        Text(
            "h.toml", registry.export().replace('name = "price"\n', 'name = "price"\nhistory=99\n')
        )
    ),
    lambda registry: registry.apply(
        Text("w.toml", registry.export().replace("The last price.", "The newest price."))
    ),
    lambda registry: registry.deprecate(f"{SMA}@3.0.0"),
    lambda registry: registry.retire(f"{SMA}@3.0.0"),
]


@contextmanager
def statements(registry: Registry) -> Iterator[list[str]]:
    """The statements that are sent meanwhile."""
    found: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        found.append(statement)

    event.listen(registry.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(registry.engine, "before_cursor_execute", note)


def test_what_a_change_says_is_recorded_is_what_is_recorded(registry: Registry) -> None:
    """In the same order, too: it is not read again as a whole."""
    for change in CHANGES:
        before = registry.catalog()
        said, found = change(registry), registry.catalog()
        assert said == found
        assert list(said.features) == list(found.features)
        assert list(said.schemas) == list(found.schemas)
        assert list(said.sets) == list(found.sets)
        moves_nothing = before == found
        assert moves_nothing == (change is CHANGES[4]), "a model is in no catalog"


def test_a_change_reads_every_definition_once(registry: Registry) -> None:
    """Under the lock, a file's too; what is recorded then differs by what it has written."""
    registry = replace(registry, limits=Limits(view_patience=None))  # views read what they show
    file = Text("sets.toml", registry.export() + MOMENTUM)
    changes: list[Callable[[Registry], object]] = [
        *CHANGES[:3],
        lambda registry: registry.apply(file),
        lambda registry: registry.roll_back("current_price"),
    ]
    for change in changes:
        with statements(registry) as sent, suppress(NotAllowed):
            change(registry)
        (lock,) = [number for number, one in enumerate(sent) if "advisory_xact_lock" in one]
        whole = [
            number
            for number, one in enumerate(sent)
            if "FROM tickwell.feature_versions ORDER BY" in one and "CASE WHEN" not in one
        ]
        assert len(whole) == 1
        assert whole[0] > lock


def test_only_what_the_transaction_has_written_is_read_again(registry: Registry) -> None:
    known = registry.catalog()
    strange = {ref: structs.replace(one, owner="me") for ref, one in known.features.items()}
    doctored = structs.replace(known, features=strange)
    with registry.engine.begin() as connection:
        assert catalog.read(connection, doctored).features == strange
        connection.execute(
            text(
                "UPDATE tickwell.feature_versions SET definition = definition"
                " WHERE name = 'price_sma_5'"
            )
        )
        found = catalog.read(connection, doctored).features
    assert found == strange | {OLD: known.features[OLD]}


def test_several_versions_share_a_row_schema(registry: Registry) -> None:
    """One a source, for however many; each recorded alone would have made one of its own."""
    before = registry.catalog()
    made = registry.create_feature_versions(VERSIONS, note="for the model")
    assert [one.ref for one in made] == [NEW, f"{SMA}@3.0.0", "volume_sma_3@1.0.0"]
    assert made[1].expression == "mean(price, 6)", "its parent is one of them"
    after = registry.catalog()
    added = [after.schemas[number] for number in after.schemas.keys() - before.schemas.keys()]
    assert sorted(schema.source for schema in added) == ["price", "volume"]
    for schema in added:
        held = before.schemas[before.writing[schema.source]].features
        assert schema.features[: len(held)] == held
        new = {one.ref for one in made if one.source == schema.source}
        assert set(schema.features[len(held) :]) == new
    assert after.active == before.active | {"volume_sma_3": "1.0.0"}
    assert {line.note for line in registry.audit(NEW)[:2]} == {"for the model"}
    assert registry.create_feature_versions(VERSIONS) == made
    assert registry.catalog() == after


@pytest.mark.parametrize(
    ("versions", "why"),
    [
        ([], "are 0: record 1 to 1000 at once"),
        ([VERSIONS[0]] * 1_001, "are 1001"),
        ([VERSIONS[0], VERSIONS[0]], "price_sma_5@2.0.0"),
        ([VERSIONS[0], VERSIONS[0]._replace(version="x")], "x"),
        ([*VERSIONS, DeclaredVersion("none", "1.0.0", {"source": "price"})], "expression"),
    ],
)
def test_of_several_versions_all_are_recorded_or_none(
    registry: Registry, versions: list[DeclaredVersion], why: str
) -> None:
    before = registry.catalog()
    with pytest.raises(DefinitionError, match=why):
        registry.create_feature_versions(versions)
    assert registry.catalog() == before


def test_a_file_is_read_beside_what_is_recorded_at_that_moment(registry: Registry) -> None:
    """Its versions may leave out what a parent says that was recorded a moment ago."""
    child = '[[feature]]\nname = "price_sma_5"\nversion = "3.0.0"\nparent = "2.0.0"\nowner = "a"\n'
    with pytest.raises(DefinitionError, match=r"its parent price_sma_5@2\.0\.0 is neither"):
        registry.apply(Text("child.toml", child))
    registry.create_feature_version(SMA, "2.0.0", NEWER, "1.0.0")
    assert registry.apply(Text("child.toml", child)).features[f"{SMA}@3.0.0"].owner == "a"
    assert record(registry.engine, read(), "ann") == registry.catalog()


def begin(registry: Registry, schema_id: int, partitions: int) -> None:
    """Put on record that a row schema was stored, in so many partitions of a topic."""
    with registry.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO tickwell.topics (topic_id, topic, partitions)"
                " VALUES ('00000000-0000-0000-0000-000000000001', 'ticks.price', :partitions)"
                " ON CONFLICT DO NOTHING"
            ),
            {"partitions": partitions},
        )
        connection.execute(
            text(
                "INSERT INTO tickwell.schema_starts (topic_id, partition, schema_id, from_offset)"
                " SELECT '00000000-0000-0000-0000-000000000001', number, :schema, 100 + number"
                " FROM generate_series(0, :partitions - 1) AS number"
            ),
            {"schema": schema_id, "partitions": partitions},
        )


def test_the_audit_of_a_version_has_the_rows_it_came_into_and_left(registry: Registry) -> None:
    """And where they begin; not the ones that others came into."""
    registry.create_feature_version(SMA, "2.0.0", NEWER, "1.0.0")
    came = registry.catalog().writing["price"]
    registry.create_feature_version(
        "other", "1.0.0", {"expression": "last(price)", "source": "price"}
    )
    registry.deprecate(NEW)
    registry.retire(NEW)
    left = registry.catalog().writing["price"]
    begin(registry, came, 2)

    def rows(name: str) -> list[str]:
        return [one.subject for one in registry.audit(name) if one.action == "new row schema"]

    assert rows(NEW) == [str(left), str(came)]
    first = min(registry.catalog().schemas)
    (price,) = [one.id for one in registry.catalog().schemas.values() if OLD in one.features][:1]
    assert rows(OLD) == [str(price)]
    assert set(rows(SMA)) == {str(price), str(came), str(left)}
    assert first <= price
    (line,) = [one for one in registry.audit(NEW) if one.subject == str(came)]
    assert line.actor == "bob"
    assert [tuple(one) for one in line.starts] == [("ticks.price", 0, 100), ("ticks.price", 1, 101)]
    (line,) = [one for one in registry.audit(NEW) if one.subject == str(left)]
    assert line.starts == ()
    begin(registry, left, 150)
    (line,) = [one for one in registry.audit("source:price") if one.subject == str(left)]
    assert [one.partition for one in line.starts] == list(range(100))


def test_the_audit_of_a_pin_is_of_that_version(registry: Registry) -> None:
    registry.create_feature_version(SMA, "2.0.0", NEWER, "1.0.0")
    registry.activate(NEW)
    subjects = {one.subject for one in registry.audit(NEW) if one.action != "new row schema"}
    assert subjects == {SMA, NEW}
    assert OLD in {one.subject for one in registry.audit(SMA)}
