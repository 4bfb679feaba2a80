"""A registry that says what a worker cannot use: it computes as before, and says why."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import msgspec
import pytest

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import HistoryTooShort, StoreUnavailable
from pipelines.live.following import Following
from pipelines.live.materializer import Materializer
from registry import catalog
from registry.database.engine import connect
from registry.definitions import Catalog, RowSchema
from registry.errors import DefinitionError, NewerRegistry
from registry.serial import serial
from tests.support.shipped import CATALOG, PROGRAM, RULES, SCHEMA

NEWER = msgspec.structs.replace(
    CATALOG, schemas={1: SCHEMA, 2: RowSchema(2, "price", SCHEMA.features)}, writing={"price": 2}
)
REFUSED = [HistoryTooShort(64, 100), DefinitionError("mean_7", "no"), NewerRegistry("x")]


class Kept:
    """In place of a store: nothing is stored."""

    name, pace, history = "kept", 0.0, None


def following(recorded: Catalog, error: Exception | None = None) -> tuple[Following, Materializer]:
    """What follows a registry with this catalog; to compute its schema raises `error`."""

    def compute(catalog: Catalog, source: str) -> RunComputation:
        if error is not None:
            raise error
        schema = catalog.schemas[catalog.writing[source]]
        return RunComputation(RULES, schema, PROGRAM, 1000)

    sink: Any = Kept()
    made = Following(lambda: None, lambda: recorded, compute)
    work = Materializer(RunComputation(RULES, SCHEMA, PROGRAM, 1000), sink)
    made.materializers = {"price": work}
    return made, work


def test_what_is_newer_is_taken_over() -> None:
    follows, work = following(NEWER)
    newer = follows.newer("price", 1)
    assert newer is not None
    assert newer.schema.id == 2
    assert follows.newer("price", 2) is None
    follows.look()
    assert work.schema.id == 2


@pytest.mark.parametrize("error", REFUSED)
def test_what_cannot_be_computed_here_is_said_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    follows, work = following(NEWER, error)
    for _ in range(3):
        follows.look()
    assert work.schema.id == 1
    assert [record.message.endswith(str(error)) for record in caplog.records] == [True]
    with pytest.raises(StoreUnavailable, match="the registry: ") as refused:
        follows.newer("price", 1)
    assert str(error) in str(refused.value)


def test_a_registry_without_the_source_is_an_older_one() -> None:
    """It was restored from a copy of before the source was declared."""
    follows, work = following(msgspec.structs.replace(CATALOG, schemas={}, writing={}))
    follows.look()
    assert work.schema.id == 1
    assert follows.newer("price", 1) is None


def test_a_new_source_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    follows, _ = following(msgspec.structs.replace(NEWER, writing={"price": 2, "other": 3}))
    with caplog.at_level("WARNING"):
        for _ in range(3):
            follows.look()
    assert [record.message.split()[1] for record in caplog.records] == ["other"]


def test_a_registry_that_accepts_and_is_silent_is_not_waited_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://a@127.0.0.1:{silent.getsockname()[1]}/b"
        engine = connect(url, connect_timeout=2, statement_timeout_ms=500, silence_ms=500)
        follows = Following(
            partial(serial, engine), partial(catalog.load, engine), lambda *_: REFUSED[0]
        )
        follows.look()
        with pytest.raises(StoreUnavailable, match="the registry: "):
            follows.newer("price", 1)
