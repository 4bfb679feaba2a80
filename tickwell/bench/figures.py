"""What a run has shown: figures, targets beside them, and the table that a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec import Struct

from tickwell.bench.draws import ideal_hit_ratio
from tickwell.bench.histogram import percentiles
from tickwell.bench.tally import TIERS, Seen

SHARES = (0.5, 0.99, 0.999, 1.0)
TARGET_P99_SECONDS = 0.1
TARGET_RATE = 1_000.0
TARGET_SUCCESS = 0.99
TARGET_HITS = 0.9
TARGET_EXPONENT = 1.2
"""The least skew for which the target of hits is meant: with less even an ideal cache may miss it.
"""


class Run(NamedTuple):
    """How it was asked."""

    url: str
    features: list[str]
    entities: int
    exponent: float
    at_once: int
    connections: int
    processes: int
    rate: float | None
    seconds: float

    @property
    def loop(self) -> str:
        """The kind of load in words."""
        if self.rate is None:
            return f"closed loop: {self.connections:,} connections, each with one request under way"
        return (
            f"open loop: {self.rate:,.0f} requests a second due at random, over at most "
            f"{self.connections:,} connections; times begin when a request was due"
        )


class Target(Struct, frozen=True):
    """Something that is aimed for; `is_met` is None where it cannot be judged, `why` says so."""

    what: str
    found: str
    is_met: bool | None
    why: str = ""


class Figures(Struct, frozen=True):
    """Times are in seconds, ratios from 0 to 1; None is not known."""

    sent: int
    success: float
    requests_a_second: float
    p50: float | None
    p99: float | None
    p999: float | None
    longest: float | None
    failures: dict[str, int]
    statuses: dict[str, float]
    """The share of values by status."""
    tiers: dict[str, float]
    """The share of values by the tier that they are from."""
    ideal_hits: float | None
    """The share of the same draws that an ideal cache of hot's size answers."""
    hot_entities: float | None
    """How many entities hot holds when it is full."""
    targets: list[Target]

    @property
    def is_met(self) -> bool:
        """Whether no target is missed."""
        return all(target.is_met is not False for target in self.targets)


def figures(run: Run, seen: Seen, hot_entities: float | None, is_hot_set: bool = False) -> Figures:
    """The figures of what was seen. `is_hot_set` says that the stack is to have the hot tier."""
    failed = sum(seen.failures.values())
    sent = seen.answered + failed
    success = seen.answered / sent if sent else 0.0
    rate = seen.answered / run.seconds
    p50, p99, p999, longest = (_known(t) for t in percentiles(seen.counts, SHARES))
    tiers = _parts({tier: seen.tiers[tier] for tier in TIERS if seen.tiers[tier]})
    ideal = None if hot_entities is None else _known(ideal_hit_ratio(seen.drawn, hot_entities))
    return Figures(
        sent=sent,
        success=success,
        requests_a_second=rate,
        p50=p50,
        p99=p99,
        p999=p999,
        longest=longest,
        failures=dict(seen.failures.most_common()),
        statuses=_parts(dict(seen.statuses.most_common())),
        tiers=tiers,
        ideal_hits=ideal,
        hot_entities=hot_entities,
        targets=[
            Target("p99 below 100 ms", _ms(p99), p99 is not None and p99 < TARGET_P99_SECONDS),
            Target("more than 1,000 requests a second", f"{rate:,.0f}", rate > TARGET_RATE),
            Target("at least 99 % answered well", _percent(success), success >= TARGET_SUCCESS),
            _hits(run, tiers, is_hot_set),
        ],
    )


def _hits(run: Run, tiers: dict[str, float], is_hot_set: bool) -> Target:
    what = "more than 90 % of values from hot, at Zipf 1.2"
    hot = tiers.get("hot", 0.0)
    if "hot" not in tiers and not is_hot_set:
        why = "no answer was from the hot tier: is TICKWELL_REDIS_HOT set where the server runs?"
        return Target(what, "none", None, why)
    if run.exponent < TARGET_EXPONENT:
        return Target(what, _percent(hot), None, f"asked with Zipf {run.exponent:g}: see the ideal")
    why = "" if hot else "TICKWELL_REDIS_HOT is set, and no answer was from the hot tier"
    return Target(what, _percent(hot), hot > TARGET_HITS, why)


def rows(run: Run, found: Figures) -> Iterator[tuple[str, str]]:
    """The lines of the table: a name and a figure."""
    yield "requests", f"{found.sent:,}"
    yield "answered well", _percent(found.success)
    yield "requests a second", f"{found.requests_a_second:,.0f}"
    if run.at_once > 1:
        yield "entities a second", f"{found.requests_a_second * run.at_once:,.0f}"
    named = {"p50": found.p50, "p99": found.p99, "p99.9": found.p999, "longest": found.longest}
    for name, seconds in named.items():
        yield name, _ms(seconds)
    for tier, share in found.tiers.items():
        yield f"values from {tier}", _percent(share)
    if found.ideal_hits is not None and found.hot_entities is not None:
        size = "all" if found.hot_entities >= run.entities else f"{found.hot_entities:,.0f}"
        yield f"an ideal cache of {size} entities", _percent(found.ideal_hits)
    for status, share in found.statuses.items():
        yield f"values that are {status}", _percent(share)
    for why, count in found.failures.items():
        yield f"failed: {why}", f"{count:,}"


def table(run: Run, found: Figures) -> Any:
    """What a terminal shows."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    for name, figure in rows(run, found):
        shown.add_row(Text(name), figure)
    targets = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("target", "found", ""):
        targets.add_column(column, justify="right" if column == "found" else "left")
    words = {True: "[green]met[/]", False: "[red]missed[/]", None: "not judged"}
    for target in found.targets:
        word = words[target.is_met]
        targets.add_row(target.what, target.found, f"{word} ({target.why})" if target.why else word)
    return Group(Text(head(run)), "", shown, "", targets)


def head(run: Run) -> str:
    """How and what was asked, in two lines."""
    many = f"{run.at_once:,} entities" if run.at_once > 1 else "one entity"
    skew = f"Zipf {run.exponent:g}" if run.exponent else "all alike"
    return (
        f"{run.url}, {run.loop}\n"
        f"asked for {run.seconds:g} s by {run.processes} process{'es' * (run.processes > 1)}: "
        f"{len(run.features)} features of {many} a request, of {run.entities:,} entities ({skew})"
    )


def _parts(counts: dict[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}


def _known(number: float) -> float | None:
    return number if number == number else None


def _ms(seconds: float | None) -> str:
    return "—" if seconds is None else f"{seconds * 1000:,.2f} ms"


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %"
