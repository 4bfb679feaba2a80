"""The writer of the log of served values: its bound, its files, and what cannot be written."""

from __future__ import annotations

import logging
import os
import random
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.formats.served_log import Served, encode, read_served
from serving.metrics import Metrics
from serving.served_log import FILES, WAITING, ServedLog
from serving.served_log_metrics import served_log_families
from tests.support.pipeline import wait_for


def served(moment: int, text: str = "id") -> Served:
    return Served(moment, text, (), (), 0)


@contextmanager
def log_in(directory: Path | None, **options: int) -> Iterator[ServedLog]:
    log = ServedLog(directory, **{"every": 1, **options})
    try:
        yield log
    finally:
        log.close()


def moments(directory: Path) -> list[int]:
    return [one.moment for one in read_served(directory)]


def modes(directory: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in directory.glob("*.jsonl*")}


@pytest.mark.parametrize("every", [1, 2, 1_000])
def test_one_request_in_many_is_due(tmp_path: Path, every: int) -> None:
    log = ServedLog(tmp_path, every, draw=random.Random(1))
    due = [log.is_due() for _ in range(200 * every)]
    assert 150 <= sum(due) <= 250
    assert sum(due) == 200 or every > 1
    gaps = {len(gap) for gap in "".join("x" if one else "." for one in due).split("x")}
    assert len(gaps) > 1 or every == 1  # a client that asks in a rhythm is not always the same one


@pytest.mark.parametrize("off", [(None, 1), (Path("served"), 0)])
def test_of_a_log_that_is_off_nothing_is_due_and_there_is_no_file(
    tmp_path: Path, off: tuple[Path | None, int]
) -> None:
    directory, every = off
    log = ServedLog(directory and tmp_path / directory, every)
    assert not any(log.is_due() for _ in range(5_000))
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_there_is_no_file_before_the_first_line(tmp_path: Path) -> None:
    directory = tmp_path / "data" / "served"
    with log_in(directory) as log:
        assert log.is_due()
        assert not directory.exists()
        log.note(lambda: served(1))
    assert moments(directory) == [1]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert modes(directory) == {0o600}


def test_files_are_bounded_and_the_newest_lines_are_kept(tmp_path: Path) -> None:
    size = len(encode(served(10_000))) + 1
    with log_in(tmp_path, file_bytes=20 * size) as log:
        for moment in range(10_000, 10_400):
            wait_for("there is room", lambda: log.dropped == 0)
            log.note(lambda moment=moment: served(moment))  # type: ignore[misc]
            if moment % 50 == 0:
                newest = moment
                wait_for("it is written", lambda newest=newest: newest in moments(tmp_path))
    files = list(tmp_path.glob("*.jsonl*"))
    assert len(files) == FILES
    assert all(path.stat().st_size <= 20 * size for path in files)
    kept = moments(tmp_path)
    assert kept == list(range(10_400 - len(kept), 10_400))
    assert len(kept) > (FILES - 1) * 15
    assert modes(tmp_path) == {0o600}
    assert log.dropped == 0


def test_each_process_has_a_file_and_the_next_one_takes_it_up(tmp_path: Path) -> None:
    with log_in(tmp_path) as first, log_in(tmp_path) as second:
        first.note(lambda: served(1))
        wait_for("it is written", lambda: moments(tmp_path) == [1])
        second.note(lambda: served(2))
        wait_for("both are", lambda: moments(tmp_path) == [1, 2])
    with (tmp_path / "1.jsonl").open("ab") as file:
        file.write(b'{"moment":')  # the process was killed
    with log_in(tmp_path) as third:
        third.note(lambda: served(3))
    assert sorted(moments(tmp_path)) == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.glob("*.jsonl*")) == ["1.jsonl", "2.jsonl"]


def test_a_directory_that_cannot_be_written_to_is_told_of_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / "served"
    with caplog.at_level(logging.WARNING), log_in(directory) as log:
        for moment in range(10):
            log.note(lambda moment=moment: served(moment))  # type: ignore[misc]
        wait_for("all are counted", lambda: log.dropped == 10)
        assert log.requests == 10
        (tmp_path / "file").unlink()
        log.note(lambda: served(11))
    assert moments(directory) == [11]
    (warning,) = caplog.records
    assert "what is served is not logged: [Errno 20]" in warning.getMessage()


def test_a_full_disk_costs_lines_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`/dev/full` says at every write that no space is left."""
    tmp_path.joinpath("1.jsonl").symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING), log_in(tmp_path) as log:
        log.note(lambda: served(1, "x" * 100_000))
        log.note(lambda: served(2))
        wait_for("both are counted", lambda: log.dropped == 2)
        tmp_path.joinpath("1.jsonl").unlink()
        log.note(lambda: served(3))
    assert moments(tmp_path) == [3]
    assert "No space left" in caplog.text


def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    """A pipe that nobody reads is never open."""
    os.mkfifo(tmp_path / "1.jsonl")
    log = ServedLog(tmp_path, 1)
    began = time.monotonic()
    for moment in range(2 * WAITING):
        log.note(lambda moment=moment: served(moment))  # type: ignore[misc]
    assert time.monotonic() - began < 0.5
    assert WAITING - 1 <= log.dropped <= WAITING
    with (tmp_path / "1.jsonl").open("rb"):  # lets the thread end
        log.close()


def test_a_mistake_in_what_is_noted_ends_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> Served:
        raise KeyError("a mistake")

    with log_in(tmp_path) as log:
        log.note(fails)
        assert (log.requests, log.dropped) == (1, 1)
    assert "could not be noted" in caplog.text


def test_what_is_noted_and_dropped_is_counted(tmp_path: Path) -> None:
    metrics = Metrics(list)
    with log_in(tmp_path / "a") as log:
        metrics.add(served_log_families(log))
        log.note(lambda: served(1))
        assert metrics.total("tickwell_served_log_requests_total") == 1
        assert metrics.total("tickwell_served_log_dropped_total") == 0
