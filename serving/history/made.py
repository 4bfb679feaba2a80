"""How a training set was made: all that its rows and the database do not say."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from serving.errors import InvalidRequest
from serving.history.entity_rows import FIRST_MOMENT, LAST_MOMENT
from serving.history.training_set import Stale


class Made(Struct):
    """How a training set was made; times are nanoseconds UTC.

    `pins` has the version of each feature, `name@version`, by the name of its column; or
    `name@as_served` where each row has that of its moment. `open` rows may be others by now: their
    ticks had to be known by `closed_until` or later.
    """

    pins: dict[str, str]
    time_column: str
    timezone: str | None
    as_known_at: Annotated[int, Meta(ge=0, le=LAST_MOMENT)] | None
    stale: Stale
    event_times: bool
    made_at: int
    delay: Annotated[int, Meta(ge=0, le=LAST_MOMENT)] = 0
    versions: Literal["active", "as_served"] = "active"
    open: int = 0
    closed_until: int = FIRST_MOMENT


def made_in(told: bytes) -> Made:
    """How it was made, of what a set says. Raises `InvalidRequest` for what another build says."""
    try:
        return msgspec.json.decode(told, type=Made)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"it was made by another build, which told it so: {error}") from None
