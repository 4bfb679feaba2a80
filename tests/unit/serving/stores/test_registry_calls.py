"""Calls of the registry: reads and changes wait for their own kind alone."""

from __future__ import annotations

import asyncio
from threading import Event

import pytest

from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from serving.errors import Overloaded
from serving.stores.registry_calls import CHANGES, READS, RegistryCalls
from tests.support.apps import in_a_loop

ANN = By("ann")
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"
"""Nobody connects to it: the calls of these tests ask for nothing."""


def calls() -> RegistryCalls:
    return RegistryCalls(NOWHERE, None, lambda: (), most_waiting=3)


@in_a_loop
async def test_slow_reads_keep_no_change_out() -> None:
    """Nor those that wait for them."""
    registry, done = calls(), Event()
    reads = [
        asyncio.create_task(registry.read(ANN, lambda _: done.wait(60))) for _ in range(READS + 3)
    ]
    try:
        await asyncio.sleep(0)  # until they are under way
        with pytest.raises(Overloaded):
            await registry.read(ANN, lambda _: None)
        assert await registry.change(ANN, lambda _: "changed") == "changed"
    finally:
        done.set()
    assert all(await asyncio.gather(*reads))
    assert await registry.read(ANN, lambda _: "read") == "read"
    await registry.close()


@in_a_loop
async def test_slow_changes_keep_no_read_out() -> None:
    registry, done = calls(), Event()
    changes = [
        asyncio.create_task(registry.change(ANN, lambda _: done.wait(60)))
        for _ in range(CHANGES + 3)
    ]
    try:
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await registry.change(ANN, lambda _: None)
        assert await registry.read(ANN, lambda _: "read") == "read"
    finally:
        done.set()
    assert all(await asyncio.gather(*changes))
    await registry.close()


@in_a_loop
async def test_who_calls_is_who_changes() -> None:
    """Reads and changes have connections of their own, too."""
    registry = calls()

    def called(given: Registry) -> tuple[By, int]:
        return given.by, id(given.engine)

    read, changed = await registry.read(ANN, called), await registry.change(By("bob"), called)
    assert (read[0], changed[0]) == (ANN, By("bob"))
    assert read[1] != changed[1]
    await registry.close()
