"""A registry that says what a worker cannot use: it computes as before, and says why."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Any

import msgspec
import pytest
from sqlalchemy.exc import OperationalError

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import HistoryTooShort, StoreUnavailable
from pipelines.live.following import Following
from pipelines.live.materializer import Materializer
from registry import catalog
from registry.database.engine import connect
from registry.definitions import HISTORY, Catalog, RowSchema
from registry.errors import DefinitionError, NewerRegistry
from registry.language.program import compile_program
from registry.serial import Serial, serial
from tests.support.shipped import CATALOG, PROGRAM, RULES, SCHEMA

NEWER = msgspec.structs.replace(
    CATALOG, schemas={1: SCHEMA, 2: RowSchema(2, "price", SCHEMA.features)}, writing={"price": 2}
)
SERIAL = Serial(1, datetime(2026, 11, 30, tzinfo=UTC))
REFUSED = [HistoryTooShort("price", 64, 100), DefinitionError("mean_7", "no")]


class Kept:
    """In place of a store: nothing is stored."""

    name, pace, keeps_states = "kept", 0.0, False


def a_worker() -> Materializer:
    sink: Any = Kept()
    return Materializer(RunComputation(RULES, SCHEMA, PROGRAM, 1000), sink)


def compute(recorded: Catalog, source: str) -> RunComputation:
    schema = recorded.schemas[recorded.writing[source]]
    return RunComputation(RULES, schema, compile_program(recorded, schema), 1000)


def following(recorded: Catalog, compute: Any = compute, **options: Any) -> Following:
    """What follows a registry with this catalog, for a worker of the price source."""
    given = {"serial": lambda: SERIAL, "load": lambda: recorded, "compute": compute, **options}
    made = Following(**given)
    made.materializers = {"price": a_worker()}
    return made


def schema_of(follows: Following, source: str = "price") -> int:
    return follows.materializers[source].schema.id


def no_answer() -> Any:
    raise OperationalError("", None, OSError("refused"))


def test_what_is_newer_is_taken_over() -> None:
    follows = following(NEWER)
    newer = follows.newer("price", 1)
    assert newer is not None
    assert newer.schema.id == 2
    assert follows.newer("price", 2) is None
    follows.look()
    assert schema_of(follows) == 2


def test_servers_see_first_what_rows_are_in() -> None:
    """They look as often: whoever looks between two looks of a worker knows the row schema."""
    follows = following(NEWER, one_look_later=True)
    follows.look()
    assert schema_of(follows) == 1
    follows.look()
    assert schema_of(follows) == 2


def test_what_the_store_has_asked_for_meanwhile_stays() -> None:
    """It is newer than what was made ready before."""
    newest = msgspec.structs.replace(
        NEWER,
        schemas={**NEWER.schemas, 3: RowSchema(3, "price", SCHEMA.features)},
        writing={"price": 3},
    )
    follows = following(NEWER, one_look_later=True)
    follows.look()
    follows.materializers["price"].adopt(compute(newest, "price"))
    follows.look()
    assert schema_of(follows) == 3


def test_a_registry_that_went_away_keeps_back_nothing_that_was_seen() -> None:
    answers = [SERIAL]
    follows = following(
        NEWER, serial=lambda: answers.pop() if answers else no_answer(), one_look_later=True
    )
    for _ in range(2):
        follows.look()
    assert schema_of(follows) == 2


def keeping(history: int, known: Catalog) -> Catalog:
    """A catalog in which the price source has this history."""
    source = msgspec.structs.replace(known.sources["price"], history=history)
    return msgspec.structs.replace(known, sources={"price": source})


def test_another_history_is_taken_over(caplog: pytest.LogCaptureFixture) -> None:
    """With it alone there is no newer row schema."""
    follows = following(keeping(64, CATALOG))
    work = follows.materializers["price"]
    with caplog.at_level("INFO"):
        follows.look()
    assert (work.computation.history, work.schema.id) == (64, 1)
    assert [record.message for record in caplog.records] == [
        "price: 64 ticks of an entity are kept from now on"
    ]
    assert follows.newer("price", 1) is None


def test_a_registry_of_before_does_not_bring_back_its_history() -> None:
    """It was restored from a copy, and its row schema is an older one."""
    follows = following(keeping(64, CATALOG))
    work = follows.materializers["price"]
    work.adopt(compute(NEWER, "price"))
    follows.look()
    assert (work.computation.history, work.schema.id) == (HISTORY, 2)


@pytest.mark.parametrize("error", REFUSED)
def test_what_cannot_be_computed_here_is_said_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(recorded: Catalog, source: str) -> RunComputation:
        raise error

    follows = following(NEWER, refuse)
    for _ in range(3):
        follows.look()
    assert schema_of(follows) == 1
    assert [record.message.endswith(str(error)) for record in caplog.records] == [True]
    with pytest.raises(StoreUnavailable, match="the registry: ") as refused:
        follows.newer("price", 1)
    assert str(error) in str(refused.value)


def test_a_source_that_cannot_be_computed_here_keeps_no_other_back() -> None:
    def only_others(recorded: Catalog, source: str) -> RunComputation:
        if source == "price":
            raise REFUSED[0]
        return compute(recorded, source)

    follows = following(
        msgspec.structs.replace(NEWER, writing={"price": 2, "other": 2}), only_others
    )
    follows.materializers = {**follows.materializers, "other": a_worker()}
    follows.look()
    assert (schema_of(follows), schema_of(follows, "other")) == (1, 2)


def test_each_refusal_is_said_when_it_is_another_one(caplog: pytest.LogCaptureFixture) -> None:
    errors = [
        OperationalError("", None, OSError("refused")),
        NewerRegistry("x"),
        NewerRegistry("x"),
    ]

    def serial_of() -> Serial:
        if errors:
            raise errors.pop(0)
        return SERIAL

    follows = following(CATALOG, serial=serial_of)
    with caplog.at_level("INFO"):
        for _ in range(4):
            follows.look()
    first, second, third = [record.message for record in caplog.records]
    assert first.endswith("refused")
    assert "of a newer Tickwell" in second
    assert third == "the registry is followed again"


def test_a_registry_without_the_source_is_an_older_one() -> None:
    """It was restored from a copy of before the source was declared."""
    follows = following(msgspec.structs.replace(CATALOG, schemas={}, writing={}))
    follows.look()
    assert schema_of(follows) == 1
    assert follows.newer("price", 1) is None


def test_a_new_source_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    follows = following(msgspec.structs.replace(NEWER, writing={"price": 2, "other": 3}))
    with caplog.at_level("WARNING"):
        for _ in range(3):
            follows.look()
    assert [record.message.split()[1] for record in caplog.records] == ["other"]


def test_a_copy_that_could_not_be_shared_is_shared_later() -> None:
    """Without it nobody who cannot reach Postgres would know what is in the newest rows."""
    shared: list[Catalog] = []
    loads: list[Catalog] = []
    refusals = [StoreUnavailable("Redis"), StoreUnavailable("Redis")]

    def share(recorded: Catalog) -> None:
        if refusals:
            raise refusals.pop()
        shared.append(recorded)

    def load() -> Catalog:
        loads.append(NEWER)
        return NEWER

    follows = following(NEWER, load=load, share=share)
    follows.look()
    assert (schema_of(follows), shared) == (2, [])
    for _ in range(3):
        follows.look()
    assert (len(shared), len(loads)) == (1, 1)


def test_a_copy_is_asked_while_the_registry_does_not_answer() -> None:
    follows = following(NEWER, load=no_answer, copy=lambda: NEWER)
    newer = follows.newer("price", 1)
    assert newer is not None
    assert newer.schema.id == 2
    with pytest.raises(StoreUnavailable, match="refused; the copy in Redis is older"):
        follows.newer("price", 2)
    with pytest.raises(StoreUnavailable, match="the registry: refused"):
        following(NEWER, load=no_answer).newer("price", 1)


def test_a_registry_that_hangs_is_not_waited_for_long() -> None:
    """On a connection that was open already, no limit of a connection helps."""
    over = Event()
    follows = following(NEWER, load=lambda: over.wait(30), answer_seconds=0.2)
    try:
        follows.look()
        assert schema_of(follows) == 1
        with pytest.raises(StoreUnavailable, match="the registry: no answer"):
            follows.newer("price", 1)
    finally:
        over.set()


def test_a_registry_that_accepts_and_is_silent_is_not_waited_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://a@127.0.0.1:{silent.getsockname()[1]}/b"
        engine = connect(url, connect_timeout=2, statement_timeout_ms=500, silence_ms=500)
        asked = {"serial": partial(serial, engine), "load": partial(catalog.load, engine)}
        follows = following(NEWER, **asked)
        follows.look()
        assert schema_of(follows) == 1
        with pytest.raises(StoreUnavailable, match="the registry: "):
            follows.newer("price", 1)
