"""Draws the two pictures of README.md from a running `tickwell up`: `make picture`.

`live-view.svg` is the live view, drawn by the code that draws it in a terminal, from the answers of
the running server. `price-features.svg` is one symbol's newest prices and their features, read from
the SQL view `features.price`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import typer
from rich.console import Console
from sqlalchemy import Row, column, select, table

mpl.use("svg")
from matplotlib import pyplot as plt

from registry.database.engine import connect
from tickwell.up import state
from tickwell.up.live_view import LiveView

DOCS = Path(__file__).parent
SYMBOL = "AAPL"
TICKS = 400
"""Ticks of the symbol in the chart: 40 s of the demo."""

WIDTH, HEIGHT = 92, 60
"""Columns and lines of the terminal: enough for the roomy view."""

WEB_FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""The fonts that Rich's SVG would load from the web, which an image on a page cannot."""

LINES = {"price": "#adb5bd", "price_sma_5": "#0b7285", "price_sma_20": "#e8590c"}
"""Colours of the columns in the upper half of the chart."""

VOLATILITY = "price_volatility"

Ticks = Sequence[Row[Any]]


def pictures(
    data: Annotated[Path, typer.Option(help="Data directory of the running `tickwell up`.")] = Path(
        "data"
    ),
) -> None:
    """Draw both pictures. Raises `NotRunning` where no `tickwell up` runs on the directory."""
    running = state.read(data)
    live_view(running, DOCS / "live-view.svg")
    chart(ticks(running.environment["TICKWELL_POSTGRES"]), DOCS / "price-features.svg")


def live_view(running: state.State, file: Path) -> None:
    """Write what a terminal of `WIDTH` by `HEIGHT` shows at this moment."""
    console = Console(width=WIDTH, height=HEIGHT, record=True, force_terminal=True, file=StringIO())
    url = running.environment["TICKWELL_URL"]
    with closing(LiveView(url, lambda: running.processes, console)) as view:
        console.print(view.draw())
    picture = console.export_svg(title="tickwell up", unique_id="tickwell")
    file.write_text(_without_trailing_blanks(WEB_FONT.sub("", picture)))


def ticks(postgres: str) -> Ticks:
    """The symbol's newest ticks, oldest first, with event times in nanoseconds."""
    names = ("symbol", "event_time", *LINES, VOLATILITY)
    price = table("price", *map(column, names), schema="features")
    newest = select(price).where(price.c.symbol == SYMBOL).order_by(price.c.event_time.desc())
    engine = connect(postgres)
    try:
        with engine.connect() as connection:
            return list(reversed(connection.execute(newest.limit(TICKS)).all()))
    finally:
        engine.dispose()


def chart(rows: Ticks, file: Path) -> None:
    """Plot the price and its means above its volatility, over seconds."""
    mpl.rcParams.update({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "tickwell"})
    figure, (prices, volatility) = plt.subplots(
        2, 1, figsize=(8, 4.2), sharex=True, height_ratios=(2.2, 1), layout="constrained"
    )
    seconds = [(row.event_time - rows[-1].event_time) / 1e9 for row in rows]
    for name, colour in LINES.items():
        values = [getattr(row, name) for row in rows]
        prices.plot(seconds, values, color=colour, label=name, linewidth=1.2)
    prices.set_title(f"{SYMBOL}: each tick's row in features.price", loc="left", fontsize=10)
    prices.legend(frameon=False, ncols=3)
    values = [getattr(row, VOLATILITY) for row in rows]
    volatility.plot(seconds, values, color="#5f3dc4", label=VOLATILITY, linewidth=1.2)
    volatility.legend(frameon=False)
    volatility.set(xlabel="seconds, 0 is the newest tick", xlim=(seconds[0], 0), ylim=(0, None))
    for axes in (prices, volatility):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.patch.set_facecolor("white")  # the page may be dark
    with StringIO() as drawn:
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        file.write_text(_without_trailing_blanks(drawn.getvalue()))


def _without_trailing_blanks(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


if __name__ == "__main__":
    typer.run(pictures)
