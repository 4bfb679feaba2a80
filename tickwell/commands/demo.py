"""`tickwell demo`"""

from __future__ import annotations

from threading import Event

from tickwell.late_imports import late_imports
from tickwell.settings import Settings
from tickwell.signals import stop_on


def demo() -> None:
    """Send real daily bars as if they were ticks of now, until stopped."""
    settings = Settings.of_stack()
    settings.need("kafka")
    with late_imports():
        from tickwell.demo import stream
    stop = Event()
    stop_on(stop)
    stream(settings.kafka_connection, stop)
