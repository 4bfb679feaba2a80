"""How many rows each tier was asked for, and how many it had."""

from __future__ import annotations

from serving.stores.row_store import Tier


class TierCounts:
    """Plain integers, by `Tier`, of the one thread that serves."""

    def __init__(self) -> None:
        self.rows = 0
        """Rows that were asked for, of whichever tier."""
        self.asked = [0] * len(Tier)
        """Rows that a tier was asked for."""
        self.found = [0] * len(Tier)
        """Rows that it answered: of hot those that were believed; a row that warm does not have is
        an answer of warm too."""
