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

    def hit_ratio(self, tier: Tier) -> float | None:
        """Rows that a tier answered of those that it was asked for; None before the first."""
        return self.found[tier] / self.asked[tier] if self.asked[tier] else None

    def answered(self) -> float | None:
        """Rows that any tier answered of those that were asked for; None before the first."""
        return sum(self.found) / self.rows if self.rows else None
