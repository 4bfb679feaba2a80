"""Time of which the lake alone has all ticks: what reads ticks in Postgres cannot answer for it."""

from __future__ import annotations

from registry.formats.lake import DAY_NS, day_of
from registry.resources import sql
from serving.errors import InvalidRequest
from serving.history.snapshot import Snapshot

LET_GO = sql(__package__, "let_go")


def check_in_postgres(snapshot: Snapshot, source: str, time: int) -> None:
    """Whether Postgres has all ticks of a source that are as old as a time, nanoseconds UTC.

    Raises `InvalidRequest`, which names the file of the lake that has them.
    """
    # a time that is no day of a calendar is before all ticks, or after them
    number = min(max(time // DAY_NS, -700_000), 2_900_000)
    ((since, path),) = snapshot.rows(LET_GO, {"source": source, "day": day_of(number)})
    if since is not None and time < since:
        in_file = f": see {path} in the lake" if path else ""
        raise InvalidRequest(
            f"the ticks of {source} before {day_of(since // DAY_NS)} are in the lake, and Postgres "
            f"does not have all of them any more{in_file}"
        )
