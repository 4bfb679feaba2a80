"""Seeds of tests at random: a few in each run, and many where there is time (`make test-long`)."""

from __future__ import annotations

from typing import Any

import pytest


def seeds(few: int, many: int) -> list[Any]:
    """The seeds from 0, of which those from `few` on are `long`."""
    rest = (pytest.param(seed, marks=pytest.mark.long) for seed in range(few, many))
    return [*range(few), *rest]
