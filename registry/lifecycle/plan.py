"""A plan: the text of a features file, and the page about it, with the serial of the registry.

Saved, it is applied only to the registry that it was made for (`recording.record`), and says
nothing that is not true then.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct

from registry.errors import InvalidPlan, PlanTooLarge
from registry.lifecycle.plan_page import Page
from registry.serial import Serial

FORMAT: Literal[2] = 2
LONGEST_FILE = 20_000_000
"""Bytes of a saved plan that are read."""


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """A plan: the file, what the registry was then, and the page about both."""

    file: str
    text: str
    serial: int
    moved_at: datetime
    made_at: datetime
    page: Page
    sha256: str
    """Of the text, the page and the serial, in hexadecimal: who edits one makes another plan."""
    format: Literal[2] = FORMAT

    @property
    def expected(self) -> Serial:
        """The serial that the registry must have when the plan is applied."""
        return Serial(self.serial, self.moved_at)

    @property
    def changes_nothing(self) -> bool:
        """Whether everything in the file is recorded already."""
        page = self.page
        sources, versions = page.new_sources or page.histories, page.new or page.reworded
        return not (sources or versions or page.sets or page.rows)


def encode(plan: Plan) -> bytes:
    """The JSON of a plan, for a file. Raises `PlanTooLarge` for one that would not be read."""
    made = msgspec.json.format(msgspec.json.encode(plan), indent=1)
    if len(made) > LONGEST_FILE:
        raise PlanTooLarge(len(made), LONGEST_FILE)
    return made


def seal(text: str, page: Page, serial: Serial) -> str:
    """The `sha256` of a plan."""
    made_for = f"{serial.number} {serial.moved_at.astimezone(UTC).isoformat()}"
    sealed = (text.encode(), msgspec.json.encode(page), made_for.encode())
    return hashlib.sha256(b"\0".join(sealed)).hexdigest()


def decode(saved: bytes) -> Plan:
    """The plan of a file. Raises `InvalidPlan`, also for one that was edited."""
    try:
        plan = msgspec.json.decode(saved, type=Plan)
        if plan.sha256 != seal(plan.text, plan.page, plan.expected):
            raise InvalidPlan("it was edited since it was made")
        return plan
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPlan(str(error)) from None


def made_now() -> datetime:
    """The time of a plan, UTC."""
    return datetime.now(UTC)
