"""Readings in the background: at once, and again after one that failed."""

from __future__ import annotations

import asyncio

import pytest

from serving.watch.refreshing import refreshing


def test_the_first_reading_is_awaited_and_a_failed_one_is_repeated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def read() -> int:
        readings = 0

        async def refresh() -> None:
            nonlocal readings
            readings += 1
            if readings == 2:
                raise ValueError("the second one fails")

        async with refreshing(refresh, pause=0.001):
            assert readings == 1
            async with asyncio.timeout(10):
                while readings < 4:
                    await asyncio.sleep(0.001)
        seen = readings
        await asyncio.sleep(0.02)
        assert readings == seen
        return readings

    assert asyncio.run(read()) >= 4
    assert "the second one fails" in caplog.text


def test_a_first_reading_that_fails_is_raised() -> None:
    async def refresh() -> None:
        raise ValueError("no")

    async def read() -> None:
        async with refreshing(refresh):
            raise AssertionError("entered")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(read())
