"""`tickwell demo`"""

from __future__ import annotations

import signal
from threading import Event

from tickwell.settings import Settings


def demo() -> None:
    """Send real daily bars as if they were ticks of now, until stopped."""
    from tickwell.demo import stream

    settings = Settings.load()
    settings.need("kafka")
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stream(settings.kafka, stop)
