"""Lines of a log that repeat themselves."""

from __future__ import annotations

import io
import logging
import random
import re
from collections import Counter

import pytest

from tickwell.repeated_lines import LINES, SECONDS, CountedLines


class Log:
    """A logger of its own, at times that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.stream = io.StringIO()
        self.handler = CountedLines(self.stream, lambda: self.now)
        self.logger = logging.Logger("aiokafka")
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def test_a_flood_is_a_line_with_a_count() -> None:
    log = Log()
    for _ in range(550):
        log.logger.error("Unable connect to node with id %s: %s", 2, "refused")
        log.now += SECONDS / 551
    assert log.lines == ["Unable connect to node with id 2: refused"]
    log.now += 1
    log.logger.info("another one")
    assert log.lines[1:] == [
        "Unable connect to node with id 2: refused (549 more times in 11 s)",
        "another one",
    ]


def test_one_that_goes_on_is_told_again_and_again() -> None:
    log = Log()
    for _ in range(61):
        log.logger.error("refused")
        log.now += 1.0
    assert len([line for line in log.lines if line == "refused"]) == 7
    assert log.lines[1:3] == ["refused (9 more times in 10 s)", "refused"]


def test_what_was_counted_is_written_at_the_end() -> None:
    log = Log()
    log.logger.error("refused")
    log.logger.error("refused")
    log.handler.close()
    assert log.lines == ["refused", "refused (1 more times in 0 s)"]


def test_what_differs_is_not_the_same() -> None:
    log = Log()
    log.logger.error("refused")
    log.logger.warning("refused")
    log.logger.error("refused", exc_info=OSError(1, "a"))
    log.logger.error("refused", exc_info=OSError(2, "b"))
    assert sum(line == "refused" for line in log.lines) == 4


@pytest.mark.parametrize("seed", range(3))
def test_no_line_is_lost(seed: int) -> None:
    """However many there are: what is written and what is counted are all that was said."""
    log, draw, said = Log(), random.Random(seed), Counter[str]()
    for _ in range(3_000):
        text = f"line {int(draw.paretovariate(0.5)) % (2 * LINES)}"
        said[text] += 1
        log.logger.error(text)
        log.now += draw.random() / 5
    log.handler.close()
    found = Counter[str]()
    for line in log.lines:
        counted = re.fullmatch(r"(line \d+) \((\d+) more times in \d+ s\)", line)
        found[counted[1] if counted else line] += int(counted[2]) if counted else 1
    assert found == said
    assert len(log.lines) < 3_000


def test_a_record_whose_text_takes_other_arguments_ends_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = Log()
    log.logger.error("%d", "no number")
    assert "no number" in capsys.readouterr().err
    log.logger.error("goes on")
    assert log.lines == ["goes on"]
