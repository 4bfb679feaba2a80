"""Rejected ticks as the columns that `tickwell.store_rejected` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg2

from pipelines.ticks.columns import Rejection
from registry.resources import sql

STORE_REJECTED = sql(__package__, "store_rejected")


def rejected_columns(rejected: Sequence[Rejection]) -> dict[str, list[Any]]:
    """Rejected ticks by column. Text in Postgres holds no NUL, so a detail shows it as `\\0`."""
    return {
        "rejected_offset": [tick.offset for tick in rejected],
        "rejected_index": [tick.index for tick in rejected],
        "rejected_reason": [tick.reason for tick in rejected],
        "rejected_detail": [_printable(tick.detail) for tick in rejected],
        "rejected_key": [_binary(tick.key) for tick in rejected],
        "rejected_value": [_binary(tick.value) for tick in rejected],
        "rejected_known_at": [tick.known_at for tick in rejected],
    }


def _printable(text: str) -> str:
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()


def _binary(value: bytes | None) -> Any:
    return None if value is None else psycopg2.Binary(value)
