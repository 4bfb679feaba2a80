"""How many examples hypothesis tries of a property."""

from __future__ import annotations

from hypothesis import settings


def examples(times: float) -> settings:
    """`times` as many as the profile has: 100 in `make test`, and 3,000 in `make test-long`."""
    return settings(max_examples=round(times * settings().max_examples))
