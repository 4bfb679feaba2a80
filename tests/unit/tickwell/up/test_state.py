"""The state of an `up`: who holds a directory, and whose state is believed."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from tickwell.commands.down import down
from tickwell.errors import AlreadyRunning, NotOurs, NotRunning, TickwellError
from tickwell.up import state
from tickwell.up.state import State


def test_nobody_holds_it(tmp_path: Path) -> None:
    state.write(tmp_path, State(1, "running", (), {}))
    assert not state.is_running(tmp_path)
    with pytest.raises(NotRunning):
        state.read(tmp_path)


def test_looking_makes_nothing(tmp_path: Path) -> None:
    assert not state.is_running(tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_one_holds_it(tmp_path: Path) -> None:
    with state.locked(tmp_path):
        with pytest.raises(AlreadyRunning, match=str(os.getpid())), state.locked(tmp_path):
            pass
        assert state.running_pid(tmp_path) == os.getpid()
    assert not state.is_running(tmp_path)


def test_what_an_earlier_one_left_is_not_believed(tmp_path: Path) -> None:
    state.write(tmp_path, State(1, "running", (), {"TICKWELL_URL": "http://127.0.0.1:1"}))
    with state.locked(tmp_path):
        # `down` signals this pid: that of the earlier one may be anybody's by now
        assert state.read(tmp_path) == State(os.getpid(), "starting", (), {})
        mine = State(os.getpid(), "running", (), {})
        state.write(tmp_path, mine)
        assert state.read(tmp_path) == mine


def test_who_only_looks_is_in_nobodys_way(tmp_path: Path) -> None:
    with state.locked(tmp_path):
        pass
    done = Event()

    def look() -> None:
        while not done.is_set():
            state.is_running(tmp_path)

    watchers = [Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(200):
            with state.locked(tmp_path):
                pass
    finally:
        done.set()
        for watcher in watchers:
            watcher.join()


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    state.write(tmp_path, State(1, "running", (), {"TICKWELL_POSTGRES": "postgresql://u:p@h/d"}))
    assert state.state_file(tmp_path).stat().st_mode & 0o077 == 0


def test_another_up_is_seen_by_the_directory_that_it_holds(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from tickwell.up import state\n"
    script += "with state.locked(Path(sys.argv[3])):\n    print(flush=True); sys.stdin.read()"
    data, moved = tmp_path / "da ta", tmp_path / "moved"
    command = [sys.executable, "-c", script, "tickwell", "up", str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        assert data in state.seen_running()
        data.rename(moved)
        seen = state.seen_running()
        assert moved in seen
        assert data not in seen
        other.communicate()
    assert moved not in state.seen_running()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_another_user_made_is_theirs(tmp_path: Path) -> None:
    state.check_owner(tmp_path)  # where nothing was made yet anybody may begin
    (tmp_path / "services").mkdir()
    state.check_owner(tmp_path)
    os.chown(tmp_path / "services", 12345, 12345)
    with pytest.raises(NotOurs, match="was set up by uid 12345: run tickwell as uid 12345"):
        state.check_owner(tmp_path)


def test_only_addresses_are_taken_from_a_state(tmp_path: Path) -> None:
    """`env` prints them for a shell to evaluate, and settings are made of them."""
    planted = {"TICKWELL_URL": "http://h", "X=1; touch pwned": "", "TICKWELL_DATA": "/", "PATH": ""}
    with state.locked(tmp_path):
        state.write(tmp_path, State(os.getpid(), "running", (), planted))
        assert state.addresses(tmp_path) == {"TICKWELL_URL": "http://h"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_addresses_that_another_user_wrote_are_not_used(tmp_path: Path) -> None:
    with state.locked(tmp_path):
        state.write(tmp_path, State(os.getpid(), "running", (), {"TICKWELL_URL": "http://h"}))
        os.chown(state.state_file(tmp_path), 12345, 12345)
        with pytest.raises(NotOurs, match="was set up by uid 12345"):
            state.addresses(tmp_path)


@pytest.mark.parametrize("name", ["lock", "state.new"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    victim, data = tmp_path / "victim", tmp_path / "data"
    victim.write_text("mine")
    (data / "run").mkdir(parents=True)
    (data / "run" / name).symlink_to(victim)
    with suppress(OSError), state.locked(data):
        state.write(data, State(os.getpid(), "running", (), {}))
    assert victim.read_text() == "mine"


def test_a_pipe_in_place_of_a_lock_blocks_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "lock")
    assert not state.is_running(tmp_path)
    os.mkfifo(tmp_path / "run" / "state.json")
    assert state.last(tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("name", ["run", "services"])
def test_a_link_to_a_directory_of_ours_is_not_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).symlink_to(tmp_path / "target")
    state.check_owner(tmp_path / "data")
    os.lchown(tmp_path / "data" / name, 12345, 12345)
    with pytest.raises(NotOurs):
        state.check_owner(tmp_path / "data")


def test_the_pid_in_a_lock_is_that_of_the_process_that_holds_it(tmp_path: Path) -> None:
    """`down` signals it: a lock that names another process must not end that."""
    with state.locked(tmp_path):
        assert state.is_held_by(tmp_path, os.getpid())
        with subprocess.Popen(["sleep", "60"]) as stranger:
            (tmp_path / "run" / "lock").write_text(f"{stranger.pid}\n")
            assert state.running_pid(tmp_path) == stranger.pid
            with pytest.raises(TickwellError, match=f"pid {stranger.pid} .* does not hold"):
                down(str(tmp_path))
            assert stranger.poll() is None
            stranger.kill()
