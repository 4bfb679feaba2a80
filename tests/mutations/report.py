"""The table of mutations and the tests that caught them, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby

from tests.mutations.mutation import Mutation

HEADING = """# Deliberate mistakes, and the tests that catch them

`make mutations` makes each of these mistakes in a copy of the repository, one at a time, runs the
tests that should notice it, and writes this page. The mistakes are listed in
`tests/mutations/mutations.toml`; a mistake that no test catches makes the command fail.

{caught} of {total} are caught{untried}.
"""

CAUGHT = re.compile(r"^\| (.+) \| `([^`]+)` \| `([^`]+)` \|$", re.MULTILINE)
"""A line of the page for a mutation that was caught: its mistake, its file, and the test."""


def caught_before(page: str) -> Mapping[tuple[str, str], str]:
    """The tests that caught mutations, as a page says, by (mistake, file)."""
    return {(mistake, file): test for mistake, file, test in CAUGHT.findall(page)}


def key(mutation: Mutation) -> tuple[str, str]:
    """What identifies a mutation in a page."""
    return _cell(mutation.mistake), mutation.file


def report(listed: Sequence[Mutation], caught_by: Mapping[tuple[str, str], str | None]) -> str:
    """The page of the mutations that are listed, those of one area together.

    `caught_by` has by key the test that caught a mutation, None where every test passed, and
    nothing for one that was not tried.
    """
    caught = sum(test is not None for test in caught_by.values())
    untried = sum(key(mutation) not in caught_by for mutation in listed)
    says_untried = f"; {untried} were not tried yet" if untried else ""
    lines = [HEADING.format(caught=caught, total=len(listed), untried=says_untried)]
    for area, of_area in groupby(listed, key=lambda mutation: mutation.area):
        lines += [f"## {area}", "", "| mistake | in | caught by |", "|---|---|---|"]
        for mutation in of_area:
            by = _by(caught_by[key(mutation)]) if key(mutation) in caught_by else "not tried"
            lines.append(f"| {_cell(mutation.mistake)} | `{mutation.file}` | {by} |")
        lines.append("")
    return "\n".join(lines)


def _by(test: str | None) -> str:
    return "**nothing**" if test is None else f"`{_short(test)}`"


def _short(test: str) -> str:
    """A test without the arguments of its parameters: hypothesis and ids may hold anything."""
    return test.removeprefix("tests/").partition("[")[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
