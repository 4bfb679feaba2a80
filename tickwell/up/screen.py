"""What `tickwell up` draws: as much as the terminal holds, and all that matters in 80 by 24."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pipelines.ticks.rejection_reasons import REASONS
from registry.formats.status import Status, worst
from tickwell.client.health import SinkHealth
from tickwell.up.state import ProcessView

COLUMNS = {
    "current_price": "price",
    "price_sma_5": "sma 5",
    "price_sma_20": "sma 20",
    "price_volatility": "volatility",
    "current_volume": "volume",
    "volume_sma_10": "vol sma",
}
FEATURES = list(COLUMNS)
POSITION = "position_size"
COLOURS = {"ok": "", "stale": "yellow", "lagging": "yellow", "warming": "cyan"}
BODY = '{"features": ["price_sma_5"], "entity": {"symbol": "AAPL"}}'

WAITS_FOR = 110
"""Characters, two lines in 80 columns, of what a worker waits for, which stand for its counts."""

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the server says: an answer for each symbol, portfolio and position, and its workers."""

    prices: Sequence[Answer]
    exposures: Sequence[Answer]
    positions: Sequence[Answer]
    workers: Sequence[SinkHealth]


def screen(
    console: Console, url: str, answers: Answers | str, processes: Sequence[ProcessView]
) -> RenderableType:
    """The fullest view that fits into the console. `answers` may be why there are none."""
    views = [
        _view(url, answers, processes, roomy=roomy, reasons=reasons)
        for roomy, reasons in ((True, len(REASONS)), (False, len(REASONS)), (False, 6), (False, 3))
    ]
    return next((view for view in views if _fits(view, console)), views[-1])


def _fits(view: Group, console: Console) -> bool:
    options = console.options
    if any(  # at its minimum only what may be folded is
        Measurement.get(console, options, part).minimum > console.width
        for part in view.renderables
        if isinstance(part, Table)
    ):
        return False
    return len(console.render_lines(view, options)) <= console.height


def _view(
    url: str,
    answers: Answers | str,
    processes: Sequence[ProcessView],
    *,
    roomy: bool,
    reasons: int,
) -> Group:
    """Everything in parts. A roomy view has a line for each thing, and shows every reason."""
    parts: list[RenderableType] = [
        Text.assemble((f"Tickwell at {url}", "bold"), ("   Ctrl-C stops everything", "dim"))
    ]
    workers: Sequence[SinkHealth] = ()
    if isinstance(answers, str):
        parts.append(Text(answers, style="yellow"))
    else:
        workers = answers.workers
        parts.append(_prices(answers.prices, roomy))
        parts.append(_exposures(answers, roomy))
        if roomy:
            parts.append(_positions(answers.positions))
        parts.append(_workers(workers, reasons))
    parts.append(_processes(processes, workers) if roomy else _services(processes, workers))
    parts.append(_try_it(url))
    if roomy:
        parts = [line for part in parts for line in (part, Text())][:-1]
    return Group(*parts)


def _prices(answers: Sequence[Answer], roomy: bool) -> Table:
    table = _section("symbol")
    for title in (*COLUMNS.values(), "status", "age"):
        table.add_column(title, justify="right", no_wrap=True)
    for answer in answers:
        features = answer["features"]
        table.add_row(
            answer["entity"]["symbol"],
            *(_value(features[name], roomy) for name in COLUMNS),
            _status(features.values()),
            Text(_age(features["current_price"]["age_seconds"]), style="dim"),
        )
    return table


def _exposures(answers: Answers, roomy: bool) -> Table:
    table = _section("portfolio")
    for title in (
        ("gross exposure", "net exposure", "status") if roomy else ("gross", "net", "status")
    ):
        table.add_column(title, justify="right", no_wrap=True)
    if not roomy:
        table.add_column("positions")
    for answer in answers.exposures:
        features = answer["features"].values()
        portfolio = answer["entity"]["portfolio"]
        held = Text(", ").join(
            Text.assemble(position["entity"]["symbol"], " ", _quantity(position, roomy))
            for position in answers.positions
            if position["entity"]["portfolio"] == portfolio
        )
        row = [portfolio, *(_value(feature, roomy) for feature in features), _status(features)]
        table.add_row(*row, *(() if roomy else (held,)))
    return table


def _positions(answers: Sequence[Answer]) -> Table:
    """A line for each portfolio, a column for each symbol that a portfolio holds."""
    symbols = sorted({answer["entity"]["symbol"] for answer in answers})
    held = {(a["entity"]["portfolio"], a["entity"]["symbol"]): a for a in answers}
    table = _section("positions")
    for symbol in symbols:
        table.add_column(symbol, justify="right", no_wrap=True)
    for portfolio in dict.fromkeys(portfolio for portfolio, _ in held):
        found = (held.get((portfolio, symbol)) for symbol in symbols)
        table.add_row(
            portfolio, *("" if answer is None else _quantity(answer, True) for answer in found)
        )
    return table


def _workers(workers: Sequence[SinkHealth], reasons: int) -> Table:
    table = _section("worker")
    table.add_column("state", no_wrap=True)
    table.add_column("lag", justify="right", no_wrap=True)
    table.add_column("rejected since it started")
    for worker in workers:
        counts = [f"{count} {reason}" for reason, count in worker.rejected.items()]
        if len(counts) > reasons:
            counts[reasons:] = [f"{len(counts) - reasons} other reasons (tickwell status)"]
        style = "" if worker.state == "running" else "yellow"
        detail = Text(", ".join(counts) or "none", overflow="fold")
        if worker.waits_for:
            why = shorten(
                f"waits for {worker.waits_for}", WAITS_FOR, placeholder=" (tickwell status)"
            )
            detail = Text(why, style="yellow", overflow="fold")
        lag = "—" if worker.lag is None else str(worker.lag)
        table.add_row(worker.sink, Text(worker.state, style), lag, detail)
    return table


def _processes(processes: Sequence[ProcessView], workers: Sequence[SinkHealth]) -> Table:
    table = _section("process")
    for title in ("pid", "address", "state", "restarts"):
        table.add_column(title, no_wrap=True)
    for process in processes:
        table.add_row(
            process.name,
            str(process.pid or ""),
            process.address,
            _state(process, workers),
            str(process.restarts or ""),
        )
    return table


def _services(processes: Sequence[ProcessView], workers: Sequence[SinkHealth]) -> Table:
    """The processes, two in a line."""
    table = _section("process")
    for title in ("state", "address", "process", "state", "address"):
        table.add_column(title, no_wrap=True)
    shown = [
        (process.name, _state(process, workers), Text(process.address, "dim"))
        for process in processes
    ]
    half = (len(shown) + 1) // 2
    for index, left in enumerate(shown[:half]):
        table.add_row(
            *left, *(cell for right in shown[half + index : half + index + 1] for cell in right)
        )
    return table


def _state(process: ProcessView, workers: Sequence[SinkHealth]) -> Text:
    """What a worker says of itself, which is more than that it runs."""
    said = {worker.process: worker.state for worker in workers}
    state = said.get(process.name, process.state) if process.state == "running" else process.state
    return Text(state, "" if state == "running" else "yellow")


def _try_it(url: str) -> Text:
    # at the margin and in two lines of a shell, so that it can be copied from 80 columns
    line = f"curl -s {url}/features/online \\\n  -d '{BODY}'"
    return Text.assemble(("paste this into another terminal:\n", "dim"), line, overflow="fold")


def _section(title: str) -> Table:
    """A table with its first column."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(title, no_wrap=True)
    return table


def _status(features: Iterable[Answer]) -> Text:
    """The worst status of some features."""
    status = worst(Status(feature["status"]) for feature in features)
    return Text(status, style=COLOURS.get(status, "red"))


def _value(feature: Answer, roomy: bool) -> Text:
    """A number; without one, its status where there is room, else a dash beside the worst one."""
    status, value = feature["status"], feature["value"]
    style = COLOURS.get(status, "red")
    if value is None:
        return Text(status if roomy else "—", style=style)
    if abs(value) < 1:
        return Text(f"{value:.6f}", style=style)
    if abs(value) < 1e5:
        return Text(f"{value:,.2f}", style=style)
    if roomy:
        return Text(f"{value:,.0f}", style=style)
    return Text(f"{value / 1e6:,.2f}M", style=style)


def _quantity(position: Answer, roomy: bool) -> Text:
    feature = position["features"][POSITION]
    value, status = feature["value"], feature["status"]
    without = status if roomy else "—"
    return Text(without if value is None else f"{value:,g}", style=COLOURS.get(status, "red"))


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "—"
    for size, unit in ((86_400, "d"), (3_600, "h"), (100, "s")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}" if unit != "s" else f"{seconds:.0f}s"
    return f"{seconds:.1f}s"
