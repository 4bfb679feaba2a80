"""`python -m tests.chaos`"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console

from tests.chaos.report import command, report
from tests.chaos.run import Failed, Options, run
from tests.chaos.schedule import schedule
from tests.checker.__main__ import show
from tests.checker.findings import NotCheckable
from tickwell.errors import TickwellError


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when nothing was lost, 1 when something was or the run did not end."""
    given = _parser().parse_args(arguments)
    if given.dry_run:
        faults = schedule(given.seed, given.minutes * 60)
        print(*faults, sep="\n")
        for kind, times in Counter(fault.kind for fault in faults).most_common():
            print(f"{times:6}  {kind}")
        print(f"{len(faults):6}  in all")
        return 0
    console = Console()
    # not below a directory of ours: Postgres, which is not root, must reach it
    place = given.keep or Path(tempfile.mkdtemp(prefix="tickwell-chaos-"))
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o755)
    options = Options(given.seed, given.minutes, place, given.rate, given.cluster)
    clean = False
    try:
        result = run(options, lambda line: print(line, flush=True))
        clean = result.clean
        show(result.findings, console, first=10)
        for what, times in sorted(result.history.items()):
            console.print(f"{times:6}  {what}", highlight=False)
        if given.report is not None:
            given.report.write_text(report(result))
    except (Failed, NotCheckable, TickwellError) as error:
        console.print(f"the run did not end: {error}", highlight=False, markup=False)
    if clean and given.keep is None:
        shutil.rmtree(place, ignore_errors=True)
    else:
        console.print(f"logs and what readers saw: {place}", highlight=False)
    if not clean:
        console.print(
            f"again: {command(given.seed, given.minutes, given.cluster)}", highlight=False
        )
    return 0 if clean else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Kill, stop and restart everything under load, and prove that nothing is lost.",
    )
    parser.add_argument("--seed", type=int, default=1, help="decides every random choice")
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults")
    parser.add_argument("--rate", type=float, default=400.0, help="messages a second")
    parser.add_argument(
        "--cluster", action="store_true", help="with a Redis Cluster of three nodes as warm Redis"
    )
    parser.add_argument("--report", type=Path, help="write a report in Markdown to this file")
    parser.add_argument("--keep", type=Path, help="keep logs and data in this directory")
    parser.add_argument("--dry-run", action="store_true", help="print the schedule and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
