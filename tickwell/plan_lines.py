"""A plan as lines of text for a person who decides about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from registry.lifecycle.plan import Plan
from registry.lifecycle.plan_page import Page, PlannedReaders, PlannedVersion
from tickwell.planned_values import EntityValues, PlannedValue, VersionValues

MOST_READ = 10
"""Versions whose recent readers are shown; `--json` has more of them."""


def plan_lines(plan: Plan, valued: Sequence[VersionValues]) -> Iterator[str]:
    """The page of a plan; `valued` has the values of new versions, as far as they are computed.

    A line holds nothing that a terminal would obey: its words come from whoever wrote the file,
    which may be somebody else than who decides, and keys from producers.
    """
    return map(_harmless, _lines(plan, valued))


def _harmless(text: str) -> str:
    """A text with escapes for what is not printed."""
    if text.isprintable():
        return text
    shown = (
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )
    return "".join(shown)


def _lines(plan: Plan, valued: Sequence[VersionValues]) -> Iterator[str]:
    page = plan.page
    yield f"plan of serial {plan.serial}: {plan.file} beside what is recorded"
    yield from (f"  + source {name}" for name in page.new_sources)
    values = {one.ref: one for one in valued}
    for version in page.new:
        yield from _version_lines(version)
        if version.ref in values:
            yield from _value_lines(values[version.ref])
    for one in page.reworded:
        differs = ", ".join(f"{d.setting} `{d.was}` -> `{d.now}`" for d in one.differs)
        yield f"  ~ {one.ref}: {differs or 'its parts are pinned as its names mean now'}"
    yield from (f"  + {ref}" for ref in page.sets)
    if plan.changes_nothing:
        yield f"  nothing is new, {page.unchanged} versions are recorded as the file declares them"
    else:
        yield f"  = {page.unchanged} versions as they are"
    yield from _costs(page)
    yield from (f"  breaks: {text}" for text in page.breaks)
    yield from _reader_lines(page)
    yield from (f"  stays: {text}" for text in page.stays)
    for text in page.changed_rules:
        yield f"  refused: {text}: rules change by `tickwell migrate --from-now`"


def _version_lines(version: PlannedVersion) -> Iterator[str]:
    yield f"  + {version.ref} ({version.becomes}) {version.expression}, of {version.of}"
    for one in version.differs:
        yield f"      {one.setting}: `{one.was}` in {version.compared_with}, here `{one.now}`"
    if version.parts:
        yield f"      of {', '.join(version.parts)}"
    if version.ticks is not None:
        yield (
            f"      has its first value after {version.ticks} ticks of an entity, of those that "
            f"are kept too; {version.records or 0:,} earlier messages (at most) stay without it "
            "until they are backfilled"
        )


def _value_lines(valued: VersionValues) -> Iterator[str]:
    """The values of a version, a line an entity, and below it those of the active version."""
    if valued.without is not None:
        yield f"      no values to show: {valued.without}"
    for one in valued.entities:
        own = [_said(value.value, value.status) for value in one.values]
        yield f"      {_entity(one)}: {', '.join(own)}{_times(one.values)}"
        if valued.active is not None:
            beside = [_said(v.active_value, v.active_status or "") for v in one.values]
            yield f"        {valued.active} (active): {', '.join(beside)}"


def _entity(one: EntityValues) -> str:
    return "/".join(one.entity.values())


def _said(value: float | None, status: str) -> str:
    """A value, and its status where it is not `ok`."""
    if value is None:
        return status
    return repr(value) if status == "ok" else f"{value!r} ({status})"


def _times(values: Sequence[PlannedValue]) -> str:
    first, last = values[0].event_time, values[-1].event_time
    if last is None:
        return ""
    return f" at {last}" if first == last else f" at {first} to {last}"


def _costs(page: Page) -> Iterator[str]:
    for kept in page.histories:
        before, after = (ticks * kept.tick_bytes for ticks in kept.ticks)
        yield (
            f"  history of {kept.source}: {kept.ticks[0]:,} -> {kept.ticks[1]:,} ticks of an "
            f"entity, about {before:,} -> {after:,} bytes of Redis for each of "
            f"{kept.entities:,} entities"
        )
    for row in page.rows:
        before, after = row.online_bytes
        yield (
            f"  rows of {row.source}: {row.versions[0]} -> {row.versions[1]} versions, {before} -> "
            f"{after} bytes of Redis for each of {row.entities:,} entities, beside its ticks "
            f"(at most {row.state_bytes:,} bytes, whatever the versions), "
            f"{row.offline_bytes:+} bytes of Postgres a tick"
        )


def _reader_lines(page: Page) -> Iterator[str]:
    """Who has read what the plan concerns in the last seven days."""
    for one in page.read[:MOST_READ]:
        yield f"  read: {one.ref} by {_readers(one)}: {one.why}"
    more = max(0, len(page.read) - MOST_READ) + page.more_read
    if more:
        yield f"  read: and {more} versions more that the plan concerns"


def _readers(one: PlannedReaders) -> str:
    named = [
        f"{reader.consumer} ({reader.reads_a_day:,.1f} values a day, last "
        f"{reader.last_read:%Y-%m-%d %H:%M})"
        for reader in one.readers
    ]
    return ", ".join(named) + (f" and {one.more} more" if one.more else "")
