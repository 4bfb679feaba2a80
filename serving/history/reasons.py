"""Why a value has its status, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from registry.definitions import FeatureVersion
from registry.formats.status import Status, has_value
from registry.language.terms import Part
from registry.language.worked import Worked
from serving.history.explanation import ReadPart
from serving.history.window_ticks import Filled, TickKey

SECOND = 1e9


class Read(NamedTuple):
    """A stored feature of an entity, as it was judged, and as it is stored."""

    version: FeatureVersion
    key: tuple[str, ...]
    """The values of its source's key fields."""
    part: Part
    tick: TickKey | None
    closed: bool
    lacks: bool
    """Whether the version was never computed of the tick."""
    value: float
    """NaN where there is none."""
    status: str
    """Where it is stored: `ok`, `warming`, `undefined` or `closed`."""
    loaded: bool = False
    """Whether its tick came from files."""


def of_stored(
    read: Read, judged: int, fill: tuple[Filled, int] | None = None, worked: Worked | None = None
) -> str:
    """Of a stored feature. `fill` has what is in the window, and how many ticks it needs."""
    status, version = read.part.status, read.version
    if read.tick is None:
        return "no tick of it is stored that had happened, and was known, by then"
    if read.closed:
        return "it was closed, and has had no trade since"
    if read.lacks:
        return (
            f"its tick is stored, and {version.ref} was never computed of it: `tickwell backfill "
            f"{version.ref}` does that"
        )
    if status is Status.WARMING and fill is not None:
        filled, depth = fill
        since = "its last reset" if filled.since_reset else "its first tick"
        return f"the window has {filled.ticks} of the {depth} ticks it needs, since {since}"
    if status is Status.UNDEFINED and worked is not None and worked.undefined_by is not None:
        step = worked.undefined_by
        return f"the arithmetic has no value: {step.text} is {step.value!r}"
    if status is Status.STALE:
        return _too_old(version, read.tick.event_time, judged)
    return {
        Status.OK: "it is what the newest tick says",
        Status.WARMING: "its window is not full",
        Status.UNDEFINED: "its arithmetic has no value",
    }.get(status, status.value)


def of_derived(
    served: Part, parts: Sequence[ReadPart], worked: Worked, version: FeatureVersion, judged: int
) -> str:
    """Of a derived feature; `parts` are those of all entities."""
    status = served.status
    if status is Status.OK:
        return "all that it is computed of is ok"
    of_part = next((part for part in parts if part.status is status), None)
    if of_part is not None:
        who = "/".join(of_part.entity.values())
        return f"{of_part.feature} of {who} is {status.value}: {of_part.because}"
    if status is Status.UNDEFINED and worked.undefined_by is not None:
        step = worked.undefined_by
        return f"the arithmetic has no value: {step.text} is {step.value!r}"
    if status is Status.STALE and has_value(status) and served.event_time is not None:
        return _too_old(version, served.event_time, judged)
    if status is Status.MISSING:
        return "no entity that it is a sum over was seen by then"
    return status.value


def _too_old(version: FeatureVersion, event_time: int, judged: int) -> str:
    age, allowed = (judged - event_time) / SECOND, (version.max_age_ns or 0) / SECOND
    return f"it was {age:,.3f} s old, and {version.ref} may be {allowed:,.3f} s old"
