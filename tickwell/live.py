"""The live view of `tickwell up`: prices and features as a client reads them, and who does what.

It reads over HTTP only, so what it shows is what anybody is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from registry.status import Status, worst
from tickwell.client import Client
from tickwell.demo import PORTFOLIOS, SYMBOLS
from tickwell.errors import TickwellError
from tickwell.state import ProcessView

SECONDS = 0.5
COLUMNS = {
    "current_price": "price",
    "price_sma_5": "sma 5",
    "price_sma_20": "sma 20",
    "price_volatility": "volatility",
    "current_volume": "volume",
    "volume_sma_10": "volume sma",
}
COLOURS = {"ok": "", "stale": "yellow", "lagging": "yellow", "warming": "cyan"}


class LiveView:
    """Draws until it is told to stop."""

    def __init__(
        self, url: str, processes: Callable[[], Sequence[ProcessView]], console: Console
    ) -> None:
        self._url = url
        self._processes = processes
        self._console = console
        self._client = Client(url)

    def run(self, stop: Event) -> None:
        """Draw twice a second until `stop` is set."""
        with Live(self._draw(), console=self._console, auto_refresh=False, screen=True) as live:
            while not stop.wait(SECONDS):
                live.update(self._draw(), refresh=True)
        self._client.close()

    def _draw(self) -> RenderableType:
        parts: list[RenderableType] = [Text(f"Tickwell at {self._url}", style="bold")]
        health: Mapping[str, Any] = {}
        try:
            prices = self._client.batch(list(COLUMNS), [{"symbol": symbol} for symbol in SYMBOLS])
            exposures = self._client.batch(
                ["portfolio_exposure", "portfolio_exposure_net"],
                [{"portfolio": portfolio} for portfolio in PORTFOLIOS],
            )
            health = self._client.health()
        except TickwellError as error:
            parts.append(Text(str(error), style="yellow"))
        else:
            parts += [_prices(prices), _exposures(exposures)]
        parts += [_processes(self._processes(), health), self._try_it()]
        return Group(*(line for part in parts for line in (part, Text())))

    def _try_it(self) -> Text:
        # in two lines of a shell, so that it can be copied from 80 columns
        body = '{"features": ["price_sma_5"], "entity": {"symbol": "AAPL"}}'
        line = f"curl -s {self._url}/features/online \\\n  -d '{body}'"
        return Text.assemble(("try:  ", "dim"), line, ("\nCtrl-C stops everything", "dim"))


def _prices(answers: Sequence[Mapping[str, Any]]) -> Table:
    table = _section("symbol")
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    for title in ("status", "age"):
        table.add_column(title, justify="right")
    for answer in answers:
        features = answer["features"]
        age = features["current_price"]["age_seconds"]
        table.add_row(
            answer["entity"]["symbol"],
            *(_value(features[name]) for name in COLUMNS),
            _status(features.values()),
            Text("—" if age is None else f"{age:.1f}s", style="dim"),
        )
    return table


def _exposures(answers: Sequence[Mapping[str, Any]]) -> Table:
    table = _section("portfolio")
    for title in ("gross exposure", "net exposure", "status"):
        table.add_column(title, justify="right")
    for answer in answers:
        features = answer["features"].values()
        portfolio = answer["entity"]["portfolio"]
        table.add_row(portfolio, *map(_value, features), _status(features))
    return table


def _section(title: str) -> Table:
    """A table with its first column."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column(title)
    return table


def _status(features: Iterable[Mapping[str, Any]]) -> Text:
    """The worst status of some features."""
    status = worst(Status(feature["status"]) for feature in features)
    return Text(status, style=COLOURS.get(status, "red"))


def _value(feature: Mapping[str, Any]) -> Text:
    status, value = feature["status"], feature["value"]
    if value is None:
        return Text(status, style=COLOURS.get(status, "red"))
    shown = f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.2f}"
    if abs(value) < 1:
        shown = f"{value:.6f}"
    return Text(shown, style=COLOURS.get(status, "red"))


def _processes(processes: Sequence[ProcessView], health: Mapping[str, Any]) -> Table:
    table = _section("process")
    for title in ("pid", "address", "state", "lag", "rejected"):
        table.add_column(title)
    beats = {
        f"worker-{sink}": beats[0] for sink, beats in health.get("workers", {}).items() if beats
    }
    for process in processes:
        beat = beats.get(process.name)
        state = process.state if beat is None else beat["state"]
        lag = "" if beat is None else str(sum(part["lag"] for part in beat["lag"]))
        rejected = "" if beat is None else str(sum(beat["rejected"].values()))
        style = "" if state == "running" else "yellow"
        pid = str(process.pid or "")
        table.add_row(process.name, pid, process.address, Text(state, style), lag, rejected)
    return table
