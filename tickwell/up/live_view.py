"""The live view of `tickwell up`: prices and features as a client reads them, and processes.

It reads over HTTP only, so it shows what every client is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Event

from rich.console import Console, RenderableType
from rich.live import Live

from tickwell import Client
from tickwell.client.health import sinks
from tickwell.demo import PORTFOLIOS, SYMBOLS
from tickwell.errors import TickwellError
from tickwell.up.screen import FEATURES, POSITION, Answer, Answers, screen
from tickwell.up.state import ProcessView

SECONDS = 0.5
DEADLINE_SECONDS = 5.0


class LiveView:
    """Draws the view until it is stopped."""

    def __init__(
        self, url: str, processes: Callable[[], Sequence[ProcessView]], console: Console
    ) -> None:
        self._url = url
        self._processes = processes
        self._console = console
        self._client = Client(url, deadline_seconds=DEADLINE_SECONDS)

    def run(self, stop: Event) -> None:
        """Draw twice a second until `stop` is set."""
        with Live(self.draw(), console=self._console, auto_refresh=False, screen=True) as live:
            while not stop.wait(SECONDS):
                live.update(self.draw(), refresh=True)

    def close(self) -> None:
        self._client.close()

    def draw(self) -> RenderableType:
        """What there is to see now, in the console's size."""
        answers: Answers | str
        try:
            answers = self._ask()
        except TickwellError as error:
            answers = str(error)
        return screen(self._console, self._url, answers, self._processes())

    def _ask(self) -> Answers:
        return Answers(
            prices=self._batch(FEATURES, [{"symbol": symbol} for symbol in SYMBOLS]),
            exposures=self._batch(
                ["portfolio_exposure", "portfolio_exposure_net"],
                [{"portfolio": portfolio} for portfolio in PORTFOLIOS],
            ),
            positions=self._batch(
                [POSITION],
                [
                    {"portfolio": portfolio, "symbol": symbol}
                    for portfolio, held in PORTFOLIOS.items()
                    for symbol in held
                ],
            ),
            workers=sinks(self._client.health()),
        )

    def _batch(
        self, features: Sequence[str], entities: Sequence[Mapping[str, str]]
    ) -> list[Answer]:
        found = self._client.get_batch_features(features, entities)
        return [entity.as_answer() for entity in found]
