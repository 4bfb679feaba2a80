"""`tickwell demo`"""

from __future__ import annotations

from threading import Event

from tickwell.settings import Settings
from tickwell.signals import stop_on


def demo() -> None:
    """Send real daily bars as if they were ticks of now, until stopped."""
    from tickwell.demo import stream

    settings = Settings.of_stack()
    settings.need("kafka")
    stop = Event()
    stop_on(stop)
    stream(settings.kafka_connection, stop)
