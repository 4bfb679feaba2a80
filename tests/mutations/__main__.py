"""`python -m tests.mutations`"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from rich.console import Console
from rich.progress import Progress

from tests.mutations.mutation import Mutation, read_mutations
from tests.mutations.report import caught_before, key, report
from tests.mutations.runner import Copy, NotRunnable, Outcome

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/mutations.md"
ALL_CAUGHT, SURVIVED, NOT_RUNNABLE = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when every mistake was caught, 1 when one was not, 2 when tests could not run."""
    given = _parser().parse_args(arguments)
    console = Console(stderr=True)
    listed = read_mutations()
    known: dict[tuple[str, str], str | None] = {}
    if given.new:
        listed_keys = {key(mutation) for mutation in listed}
        before = caught_before(PAGE.read_text("utf-8"))
        known |= {one: test for one, test in before.items() if one in listed_keys}
    chosen = [m for m in listed if given.area in (None, m.area) and key(m) not in known]
    if not chosen:
        wanted = "is new" if given.new else f"has the area {given.area!r}"
        console.print(f"no mutation {wanted}", markup=False)
        return NOT_RUNNABLE
    outcomes: list[Outcome] = []
    try:
        with _copies(given.jobs) as copies:
            for outcome in _run(chosen, copies, console, first_clean=not given.no_clean_run):
                outcomes.append(outcome)
                known[key(outcome.mutation)] = outcome.caught_by
                if given.new or given.area is None:  # at once: the others may take an hour
                    PAGE.write_text(report(listed, known), "utf-8")
    except (NotRunnable, ValueError) as error:
        console.print(str(error), markup=False)
        return NOT_RUNNABLE
    survivors = [outcome.mutation for outcome in outcomes if outcome.caught_by is None]
    for mutation in survivors:
        print(f"not caught: {mutation.file}: {mutation.mistake}")
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mistakes were caught")
    return SURVIVED if survivors else ALL_CAUGHT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutations",
        description="Make each mistake of mutations.toml in a copy of the repository, run the "
        "tests that should catch it, and write docs/mutations.md.",
    )
    parser.add_argument(
        "--area", help="only the mistakes of this area; writes no page without --new"
    )
    parser.add_argument(
        "--new",
        action="store_true",
        help="only mistakes that docs/mutations.md does not list as caught, which join the page",
    )
    parser.add_argument("--jobs", type=int, default=2, help="mistakes tried at a time (2)")
    parser.add_argument(
        "--no-clean-run",
        action="store_true",
        help="the tests are known to pass: do not run them without a mistake first",
    )
    return parser


@contextmanager
def _copies(jobs: int) -> Iterator[list[Copy]]:
    """A copy of the repository for each job, below one temporary directory.

    A service that is started as another user must be able to enter it.
    """
    folder = Path(tempfile.mkdtemp(prefix="tickwell-mutations-"))
    folder.chmod(0o755)
    try:
        yield [Copy(ROOT, folder / f"{job}") for job in range(jobs)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    chosen: Sequence[Mutation], copies: Sequence[Copy], console: Console, first_clean: bool
) -> Iterator[Outcome]:
    """The outcome of each mutation, in order, as soon as there is one.

    With `first_clean` the tests are run without any mistake first. Raises `NotRunnable`, also where
    one fails then.
    """
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)
    with (
        Progress(console=console) as progress,
        ThreadPoolExecutor(len(copies)) as executor,
    ):
        bar = progress.add_task("without a mistake", total=len(chosen))
        if first_clean:
            failed = copies[0].first_failure(sorted({test for m in chosen for test in m.tests}))
            if failed is not None:
                raise NotRunnable(f"{failed} fails without any mistake: mend it first")

        def attempt(mutation: Mutation) -> Outcome:
            copy = free.get()
            try:
                progress.update(bar, description=f"{mutation.area}: {mutation.mistake[:50]}")
                outcome = copy.try_mutation(mutation)
                progress.console.print(
                    f"{mutation.file}: {mutation.mistake}: {outcome.caught_by}", markup=False
                )
                return outcome
            finally:
                free.put(copy)
                progress.advance(bar)

        yield from executor.map(attempt, chosen)


if __name__ == "__main__":
    sys.exit(main())
