"""Splits frames of labelled rows by time: `serving.history.splitting` says into what, and why."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

from tickwell.client.entity_frames import entity_frame
from tickwell.client.errors import ClientError

Frame = TypeVar("Frame")


def split_by_time(
    frame: Frame,
    timestamp_col: str = "timestamp",
    *,
    at: datetime | str,
    label_end_col: str,
    embargo: timedelta | str | None = None,
    timezone: str | None = None,
) -> tuple[Frame, Frame]:
    """The rows of training and those of the test, each a frame of the same kind.

    A row is of training where its moment lies before `at` and its label, which is known at the
    moment in `label_end_col`, ends before it, too: others are purged. It is of the test where it
    lies at or after `at` plus the `embargo`, as "1h"; rows between are left out. Where a label is
    known at once, `label_end_col` is `timestamp_col`. Naive stamps are local times of `timezone`.

    Purging and embargo are those of López de Prado, Advances in Financial Machine Learning (2018),
    sections 7.4.1 and 7.4.2. Raises `ClientError`.
    """
    from serving.errors import ServingError
    from serving.history.entity_rows import stamps
    from serving.history.moments import delay_of, moment_of
    from serving.history.splitting import Share, shares

    rows = entity_frame(frame)
    for name in (timestamp_col, label_end_col):
        if name not in rows.names:
            raise ClientError(f"the frame has no column {name!r}; it has {', '.join(rows.names)}")
    try:
        table = rows.columns(list(dict.fromkeys([timestamp_col, label_end_col])))
        found = shares(
            stamps(table, timestamp_col, timezone),
            stamps(table, label_end_col, timezone),
            moment_of("at", at),
            delay_of("embargo", embargo),
        )
    except ServingError as error:
        raise ClientError(str(error)) from None
    return rows.only(found == Share.TRAIN), rows.only(found == Share.TEST)
