"""What a check found: how much was looked at, and what was not as it must be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

KEPT = 20
"""Examples kept of each kind of difference; all are counted."""


class NotCheckable(Exception):
    """The run cannot be judged: says what is missing, and what to do."""


@dataclass
class Findings:
    """`looked` counts what was compared, in the order of the checks; `differences` by kind.

    `examples` has explanations of some of them, by kind.
    """

    looked: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        return not self.differences

    def count(self, what: str, number: int = 1) -> None:
        self.looked[what] += number

    def differ(self, kind: str, explanation: str) -> None:
        """Something is not as it must be."""
        self.differences[kind] += 1
        kept = self.examples.setdefault(kind, [])
        if len(kept) < KEPT:
            kept.append(explanation)


def shown_time(nanoseconds: int) -> str:
    """RFC 3339 to the nanosecond, and the number itself, which can be searched for."""
    seconds, rest = divmod(nanoseconds, 10**9)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError):
        return str(nanoseconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z ({nanoseconds})"
