"""What programs that run as PostgreSQL's account can make root do: nothing.

A superuser of the database can start programs as the account that the server runs as.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.clusters import Folders, folders
from tests.support.pipeline import wait_for
from tickwell.embedded.cluster_directory import BELONGS_TO, IDENTIFIER
from tickwell.embedded.postgres import SYSTEM_USER
from tickwell.errors import TickwellError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")

NAMES = (
    *("password", "password.unfinished", "port"),
    *(BELONGS_TO, f"{BELONGS_TO}.unfinished", IDENTIFIER, f"{IDENTIFIER}.unfinished"),
)
"""Files that root reads or writes beside a cluster."""

PLANT = """
cd "$1" && victim=$2 && shift 2 || exit
for name do rm -f "$name"; ln -s "$victim" "$name"; done
"""


MAKE = """
import sys
from pathlib import Path
from tickwell.embedded.postgres import postgres
postgres(Path(sys.argv[1]), elsewhere=Path(sys.argv[2]))
"""


@pytest.fixture
def within() -> Iterator[Folders]:
    with folders() as made:
        yield made


@pytest.fixture(params=["open", "closed"])
def data(request: pytest.FixtureRequest, within: Folders) -> Path:
    folder: Path = getattr(within, request.param)
    return folder / "data"


@pytest.fixture
def victim(within: Folders) -> Iterator[Path]:
    """A file of root's that nobody else may read or change, and that must not change."""
    file = within.open / "victim"
    file.write_text("root's secret")
    file.chmod(0o600)
    before = file.stat()
    yield file
    after = file.stat()
    assert file.read_text() == "root's secret"
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)


def directory_of(within: Folders, data: Path) -> Path:
    return within.make(data)[0].directory or data


def as_account(*command: object) -> subprocess.CompletedProcess[str]:
    account = pwd.getpwnam(SYSTEM_USER)
    return subprocess.run(
        [str(word) for word in command],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def running_with(word: str) -> list[list[str]]:
    """The command lines of the processes of PostgreSQL's account that hold a word."""
    commands = [
        process.info["cmdline"] or []
        for process in psutil.process_iter(["username", "cmdline"])
        if process.info["username"] == SYSTEM_USER
    ]
    return [command for command in commands if any(word in argument for argument in command)]


def as_an_earlier_version_left_it(directory: Path) -> None:
    """It gave the account the whole directory, and the files in it that the account needed."""
    account = pwd.getpwnam(SYSTEM_USER)
    for path in (directory, directory / "password"):
        os.chown(path, account.pw_uid, account.pw_gid)
    directory.chmod(0o700)


def test_root_owns_all_but_the_cluster(within: Folders, data: Path) -> None:
    within.write(data, 1)
    directory = directory_of(within, data)
    entries = {entry.name: entry.stat() for entry in directory.iterdir()}
    uid = pwd.getpwnam(SYSTEM_USER).pw_uid
    assert [name for name, entry in entries.items() if entry.st_uid == uid] == ["cluster"]
    assert (directory.stat().st_uid, directory.stat().st_mode & 0o022) == (0, 0)
    assert entries["password"].st_mode & 0o077 == 0
    assert entries["cluster"].st_mode & 0o077 == 0


def test_it_plants_nothing_beside_its_cluster(within: Folders, data: Path, victim: Path) -> None:
    within.write(data, 1)
    directory = directory_of(within, data)
    as_account("sh", "-c", PLANT, "-", directory, victim, *NAMES)
    data.rename(data.with_name("moved"))  # then root writes its notes again
    assert within.read(data.with_name("moved")) == 1


@pytest.mark.parametrize("planted", [*NAMES, "cluster"])
def test_what_it_planted_in_an_earlier_version_has_no_effect(
    within: Folders, data: Path, victim: Path, planted: str
) -> None:
    directory = directory_of(within, data)
    as_an_earlier_version_left_it(directory)
    if (directory / planted).exists():
        (directory / planted).rename(directory / "aside")
    # by root in its name, for which a closed folder was open once
    (directory / planted).symlink_to(within.closed if planted == "cluster" else victim)
    os.lchown(directory / planted, pwd.getpwnam(SYSTEM_USER).pw_uid, -1)
    moved = data.with_name("moved")
    data.rename(moved)
    try:
        within.make(moved)
    except TickwellError as error:
        assert planted in str(error)  # noqa: PT017


def test_what_an_earlier_version_made_goes_on(within: Folders, data: Path) -> None:
    within.write(data, 1)
    directory = directory_of(within, data)
    password = (directory / "password").read_text()
    as_an_earlier_version_left_it(directory)
    assert within.read(data) == 1
    assert directory_of(within, data) == directory
    assert (directory / "password").read_text() == password
    assert (directory.stat().st_uid, (directory / "password").stat().st_uid) == (0, 0)


def test_a_password_that_was_planted_is_not_moved(within: Folders, victim: Path) -> None:
    """As when data that the account owned are moved to a closed folder."""
    data = within.open / "data"
    within.write(data, 1)
    as_an_earlier_version_left_it(data)
    planted = as_account("sh", "-c", PLANT, "-", data, victim, "password")
    assert planted.returncode == 0, planted.stderr
    data.rename(within.closed / "data")
    with pytest.raises(TickwellError, match="password"):
        within.make(within.closed / "data")


def test_a_pipe_makes_root_wait_for_nothing(within: Folders, data: Path) -> None:
    within.write(data, 1)
    directory = directory_of(within, data)
    assert as_account("mkfifo", directory / "cluster" / "postmaster.pid").returncode == 0
    abandoned = within.elsewhere / ("0" * 16)
    abandoned.mkdir(parents=True)
    os.mkfifo(abandoned / BELONGS_TO)
    within.elsewhere.chmod(0o711)
    subprocess.run([sys.executable, "-c", MAKE, data, within.elsewhere], timeout=30, check=True)


@pytest.mark.parametrize("how", ["a link", "writable", "another's"])
def test_a_directory_that_others_could_change_is_refused(within: Folders, how: str) -> None:
    target = within.open / "theirs"
    target.mkdir(mode=0o755)
    if how == "a link":
        within.elsewhere.symlink_to(target)
    else:
        target.rename(within.elsewhere)
        if how == "writable":
            within.elsewhere.chmod(0o1777)
        else:
            os.chown(within.elsewhere, 12345, 12345)
    with pytest.raises(TickwellError, match=str(within.elsewhere)):
        within.make(within.closed / "data")
    assert not list(target.iterdir() if target.exists() else within.elsewhere.iterdir())


@pytest.mark.parametrize("after", ["PG_VERSION", "base/1", "base/5"])
def test_killed_while_it_makes_a_cluster(within: Folders, data: Path, after: str) -> None:
    """Initdb goes on without its parent; it must not spoil the next one's work."""
    with subprocess.Popen([sys.executable, "-c", MAKE, data, within.elsewhere]) as making:
        deadline = time.monotonic() + 60
        made = f"cluster.unfinished*/{after}"
        while not [*data.glob(made), *within.elsewhere.glob(f"*/{made}")]:
            assert making.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        making.send_signal(signal.SIGKILL)
    within.write(data, 1)
    wait_for("initdb has ended", lambda: not running_with("cluster.unfinished"))
    assert within.read(data) == 1
    directory = directory_of(within, data)
    assert not list(directory.glob("cluster.unfinished*"))
