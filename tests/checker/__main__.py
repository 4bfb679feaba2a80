"""`python -m tests.checker`"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.checker.check import Run, check
from tests.checker.findings import Findings, NotCheckable

CLEAN, DIFFERENT, NOT_CHECKABLE = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Check a run; returns 0 when everything is as it must be, 1 if not, 2 when nobody can say."""
    given = _parser().parse_args(arguments)
    missing = [name for name in ("kafka", "redis", "postgres") if not getattr(given, name)]
    if missing:
        print(f"--{missing[0]} is not given, and TICKWELL_{missing[0].upper()} is not set")
        return NOT_CHECKABLE
    run = Run(
        kafka=given.kafka,
        redis=given.redis,
        cluster=given.cluster,
        rebuilt=given.rebuilt,
        postgres=given.postgres,
        rejected_topic=given.rejected_topic,
        topics=dict(given.topic),
        observations=given.observations,
        behind_seconds=given.lagging_limit + given.slack,
    )
    console = Console()
    try:
        findings = check(run, bars=console.is_terminal)
    except NotCheckable as why:
        console.print(f"cannot be checked: {escape(str(why))}", soft_wrap=True, highlight=False)
        return NOT_CHECKABLE
    show(findings, console, given.first)
    return CLEAN if findings.clean else DIFFERENT


def show(findings: Findings, console: Console, first: int) -> None:
    """The table of what was looked at, and the first differences of each kind."""
    table = Table("checked", "count")
    table.columns[1].justify = "right"
    for what, count in findings.looked.items():
        table.add_row(what, f"{count:,}")
    console.print(table)
    if findings.clean:
        console.print("[green]no difference[/]")
    for kind, count in findings.differences.items():
        console.print(f"[red]{escape(kind)}: {count:,}[/]", highlight=False)
        for explanation in findings.examples[kind][:first]:
            console.print(f"  {escape(explanation)}", soft_wrap=True, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.checker",
        description="Prove the guarantees of a drained run from Kafka, Postgres and Redis alone. "
        "Exit code 0: no difference; 1: differences, which are printed; 2: it cannot be checked.",
    )

    def setting(name: str, default: str, meaning: str) -> None:
        variable = f"TICKWELL_{name.upper().replace('-', '_')}"
        kept = os.environ.get(variable, default)
        parser.add_argument(f"--{name}", default=kept, help=f"{meaning} [{variable}]")

    setting("kafka", "", "host:port")
    setting("redis", "", "URL of the warm Redis")
    setting("postgres", "", "URL of the database")
    setting("rejected-topic", "ticks.rejected", "where rejected ticks are published")
    parser.add_argument(
        "--topic", action="append", type=_topic, default=[], metavar="SOURCE=TOPIC",
        help="a source's topic, where it is not the recorded one; can be given again",
    )  # fmt: skip
    parser.add_argument(
        "--cluster", action="store_true",
        default=os.environ.get("TICKWELL_CLUSTER", "").lower() in ("1", "true"),
        help="the Redis is a Redis Cluster [TICKWELL_CLUSTER]",
    )  # fmt: skip
    parser.add_argument(
        "--rebuilt", action="store_true", help="entities were put back into Redis from Postgres"
    )
    parser.add_argument(
        "--observations", type=Path, nargs="*", default=[], metavar="FILE",
        help="what readers saw, JSON lines as tests/checker/observations.py tells",
    )  # fmt: skip
    parser.add_argument(
        "--lagging-limit", type=float, default=5.0,
        help="seconds behind from which the server must say so",
    )  # fmt: skip
    parser.add_argument(
        "--slack", type=float, default=5.0, help="seconds that it may take to notice"
    )
    parser.add_argument(
        "--first", type=int, default=10, help="differences of a kind that are printed, at most 20"
    )
    return parser


def _topic(given: str) -> tuple[str, str]:
    source, separator, topic = given.partition("=")
    if not (source and separator and topic):
        raise argparse.ArgumentTypeError(f"{given!r} is not SOURCE=TOPIC")
    return source, topic


if __name__ == "__main__":
    sys.exit(main())
