"""The table of mutations and the tests that caught them, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby

from tests.mutations.mutation import Mutation
from tests.mutations.runner import Outcome

HEADING = """# Deliberate mistakes, and the tests that catch them

`make mutations` makes each of these mistakes in a copy of the repository, one at a time, runs the
tests that should notice it, and writes this page. The mistakes are listed in
`tests/mutations/mutations.toml`; a mistake that no test catches makes the command fail.

{caught} of {total} are caught.
"""


CAUGHT = re.compile(r"^\| (.+) \| `([^`]+)` \| `([^`]+)` \|$", re.MULTILINE)
"""A line of the page for a mutation that was caught: its mistake, its file, and the test."""


def caught_before(page: str) -> Mapping[tuple[str, str], str]:
    """The tests that caught mutations, as a page says, by (mistake, file)."""
    return {(mistake, file): test for mistake, file, test in CAUGHT.findall(page)}


def key(mutation: Mutation) -> tuple[str, str]:
    """What identifies a mutation in a page."""
    return _cell(mutation.mistake), mutation.file


def report(outcomes: Sequence[Outcome]) -> str:
    """The page; outcomes of one area follow each other."""
    caught = sum(outcome.caught_by is not None for outcome in outcomes)
    lines = [HEADING.format(caught=caught, total=len(outcomes))]
    for area, of_area in groupby(outcomes, key=lambda outcome: outcome.mutation.area):
        lines += [f"## {area}", "", "| mistake | in | caught by |", "|---|---|---|"]
        for outcome in of_area:
            mutation = outcome.mutation
            by = "**nothing**" if outcome.caught_by is None else f"`{_short(outcome.caught_by)}`"
            lines.append(f"| {_cell(mutation.mistake)} | `{mutation.file}` | {by} |")
        lines.append("")
    return "\n".join(lines)


def _short(test: str) -> str:
    """A test without the arguments of its parameters: hypothesis and ids may hold anything."""
    return test.removeprefix("tests/").partition("[")[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
