"""`tickwell explain`"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tickwell.client.entities import candidates
from tickwell.errors import TickwellError
from tickwell.late_imports import late_imports
from tickwell.settings import Settings

if TYPE_CHECKING:
    from serving.history.explaining import Explainer
    from serving.history.explanation import (
        Explanation,
        Number,
        Operation,
        ReadPart,
        Term,
        WindowTick,
    )
    from serving.history.window_ticks import TickKey


def explain(
    entity: Annotated[str, typer.Argument(help="AAPL, a portfolio P1, or a position P1/AAPL.")],
    feature: Annotated[str, typer.Argument(help="A name, as price_sma_5 or price_sma_5@1.0.0.")],
    at: Annotated[
        str | None,
        typer.Option(help="As a model was given it at this moment, RFC 3339; now unless set."),
    ] = None,
    tick: Annotated[
        str | None,
        typer.Option(help="Of this tick: its event time, RFC 3339, a dot and its sequence."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Key fields of the entity: symbol, portfolio, or portfolio,symbol."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show how a value came about: its ticks, the arithmetic step by step, and the proof.

    It reads Postgres by itself and needs no server. Ends with 1 where the steps give other bits
    than what is stored.
    """
    settings = Settings.of_stack()
    settings.need("postgres")
    with late_imports():
        import msgspec

        from serving.history.explaining import Explainer
        from serving.history.moments import known_by, tick_of
        from serving.history.snapshot import LakeReads, snapshot
        from serving.history.window_ticks import TickKey
        from tickwell.second_opinion import add_kernel

    if at is not None and tick is not None:
        raise TickwellError("--at and --tick are two questions: give one of them")
    when = When(
        None if at is None else known_by("--at", at),
        None if tick is None else TickKey(*tick_of("--tick", tick)),
    )
    with snapshot(settings.postgres, lake=LakeReads(settings.lake_path)) as seen:
        explained = _explained(Explainer(seen), feature, candidates(entity, kind), when)
        add_kernel(seen.catalog, explained)
    if as_json:
        typer.echo(msgspec.json.encode(explained))
    else:
        for line in lines(explained):
            typer.echo(line)
    if not explained.same:
        raise typer.Exit(1)


class When(NamedTuple):
    """A moment in nanoseconds UTC, or a tick; with neither it is now."""

    at: int | None
    tick: TickKey | None


def _explained(
    explainer: Explainer, feature: str, entities: Sequence[Mapping[str, str]], when: When
) -> Explanation:
    from serving.errors import WrongEntity

    for one in entities[:-1]:
        try:
            return explainer.explain(feature, one, *when)
        except WrongEntity:
            pass
    return explainer.explain(feature, entities[-1], *when)


def lines(explained: Explanation) -> Iterator[str]:
    """An explanation as text."""
    who = "/".join(explained.entity.values())
    yield f"{explained.feature} of {who} = {_number(explained.value)}, {explained.status.value}"
    yield f"  {explained.because}"
    yield f"  expression   {explained.expression}"
    yield f"  recorded     {explained.recorded_at} by {explained.recorded_by}"
    yield f"  {'at' if explained.at else 'now':<12} {explained.judged_at}"
    if explained.event_time is not None:
        yield f"  event time   {explained.event_time}"
    yield from _stored(explained)
    if explained.ticks:
        yield f"ticks of the window, of which {explained.field} counts:"
        yield from map(_tick, explained.ticks)
    if explained.parts:
        yield "parts:"
        yield from map(_part, explained.parts)
    if explained.terms:
        yield "terms, in the order in which they are added:"
        for number, term in enumerate(explained.terms, 1):
            yield from _term(number, term)
    if explained.steps:
        yield "steps:"
        yield from map(_step, explained.steps)
    for proof in explained.proofs:
        found = f"{_number(proof.found)}, {proof.found_status}"
        expected = f"{_number(proof.expected)}, {proof.expected_status}"
        verdict = "the same" if proof.same else f"DIFFERS: {expected}"
        yield f"the steps give {found}; {proof.against}: {verdict}"


def _stored(explained: Explanation) -> Iterator[str]:
    stored = explained.stored
    if stored is None:
        return
    if stored.row_schema is not None:
        where = f"a row of the row schema {stored.row_schema}"
    elif stored.backfill is not None:
        where = f"a block of the backfill {stored.backfill}"
    else:
        where = "a row without the version"
    yield f"  stored in    {where}, revision {stored.revision}"
    yield f"  tick         {stored.event_time}, sequence {stored.sequence}"
    yield f"  known at     {stored.known_at}"


def _tick(tick: WindowTick) -> str:
    fields = ", ".join(f"{name} {_number(number)}" for name, number in tick.fields.items())
    topic = tick.topic or tick.topic_id
    seq = "" if tick.seq is None else f", seq {tick.seq}"
    op = "" if tick.op == "trade" else f", {tick.op}"
    return (
        f"  {topic}[{tick.partition}]@{tick.offset}.{tick.index}  ts {tick.tick_time}"
        f"  event time {tick.event_time}.{tick.sequence}{seq}{op}: {fields}"
    )


def _part(part: ReadPart) -> str:
    who = "/".join(part.entity.values())
    return (
        f"  {part.name} = {part.feature} of {who} = {_number(part.value)}, {part.status.value}, "
        f"event time {part.event_time or '—'}: {part.because}"
    )


def _term(number: int, term: Term) -> Iterator[str]:
    who = "/".join(term.entity.values())
    if term.closed:
        yield f"  {number}. {who} was closed at {term.event_time}: it has no term"
        return
    yield f"  {number}. {who}: {_number(term.value)}, {term.status.value}"
    for part in term.parts:
        yield f"  {_part(part)}"
    for step in term.steps:
        yield f"  {_step(step)}"


def _step(step: Operation) -> str:
    return f"  {step.text} = {_number(step.result)}"


def _number(number: Number | None) -> str:
    """A double to be read, and its bits."""
    return "—" if number is None else f"{number.double!r} ({number.hex})"
