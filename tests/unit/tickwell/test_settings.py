"""Settings: from the environment, from files, from flags; errors name the variable."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tickwell.errors import NotRunning, SettingError, TickwellError
from tickwell.settings import ADDRESSES, Settings, moved
from tickwell.up import state
from tickwell.up.state import State

STACK = {
    "TICKWELL_KAFKA": "127.0.0.1:1",
    "TICKWELL_REDIS": "redis://127.0.0.1:2",
    "TICKWELL_REDIS_HOT": "redis://127.0.0.1:3",
    "TICKWELL_POSTGRES": "postgresql://u:p@127.0.0.1:4/d",
    "TICKWELL_URL": "http://127.0.0.1:5",
}


def test_a_flag_wins_over_the_environment() -> None:
    environment = {"TICKWELL_PORT": "9000", "TICKWELL_CAPACITY": "2048"}
    settings = Settings.load(environment, port=9001)
    assert (settings.port, settings.capacity, settings.host) == (9001, 2048, "127.0.0.1")


def test_a_secret_in_a_file_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("postgresql://u:hidden@h/d\n")
    settings = Settings.load({"TICKWELL_POSTGRES_FILE": str(file)})
    assert settings.postgres == "postgresql://u:hidden@h/d"
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TICKWELL_PORT", "http"),
        ("TICKWELL_PORT", "70000"),
        ("TICKWELL_KEEP_ALIVE_SECONDS", "0"),
        ("TICKWELL_DEADLINE_MS", "0"),
        ("TICKWELL_DEADLINE_MS", "60001"),
        ("TICKWELL_REQUESTS_IN_FLIGHT", "0"),
        ("TICKWELL_SERVED_LOG_EVERY", "-1"),
        ("TICKWELL_VERIFY_ENTITIES", "-1"),
        ("TICKWELL_VERIFY_ENTITIES", "6001"),
        ("TICKWELL_KEEP_ALIVE_SECONDS", "2.5"),
        ("TICKWELL_KAFKA", "localhost"),
        ("TICKWELL_REDIS", "localhost:6379"),
        ("TICKWELL_REDIS", "redis://[secret@h"),
        ("TICKWELL_POSTGRES", "mysql://secret@h/d"),
        ("TICKWELL_CAPACITY", "10"),
        ("TICKWELL_PARTITIONS", "0"),
        ("TICKWELL_REPLICATION", "0"),
        ("TICKWELL_REPLICATION", "-2"),
        ("TICKWELL_REPLICATION", "32768"),
        ("TICKWELL_CLUSTER", "perhaps"),
        ("TICKWELL_STATIC_MEMBER", "perhaps"),
        ("TICKWELL_SESSION", "1"),
        ("TICKWELL_SESSION", "nan"),
        ("TICKWELL_SESSION", "61"),
        ("TICKWELL_POSTGRES_FILE", "/nowhere/secret"),
    ],
)
def test_an_error_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingError, match=variable) as error:
        Settings.load({variable: value})
    assert "secret@h" not in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TICKWELL_REDIS", "redis://:pa/ss@h:6379/0"),
        ("TICKWELL_REDIS_HOT", "redis://:12/ss@h:6379/0"),
        ("TICKWELL_POSTGRES", "postgresql://u:pa/ss@h/db"),
        ("TICKWELL_POSTGRES", "postgresql://u:pa@ss@h/db"),
        ("TICKWELL_POSTGRES", "postgresql://u@ss:pa@h/db"),
        ("TICKWELL_POSTGRES", "postgresql://u:pass@h:54x/db"),
    ],
)
def test_a_url_that_clients_would_misread_is_not_shown(variable: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"{variable}=.*write / as %2F, @ as %40") as error:
        Settings.load({variable: value})
    assert not {"pa", "12", "ss", "54x"} & set(re.split(r"\W", str(error.value)))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TICKWELL_REDIS", "redis://:p@ss@h:6379/0"),
        ("TICKWELL_REDIS", "unix:///run/a@b"),
        ("TICKWELL_POSTGRES", "postgres://u:p%40%2F@H:5432/db?sslmode=require"),
        ("TICKWELL_POSTGRES", "postgresql:///db?host=/run/postgresql"),
        ("TICKWELL_POSTGRES", "postgresql://%2Frun/db"),
        ("TICKWELL_POSTGRES", "postgresql://u@[::1]:5432/db"),
        ("TICKWELL_POSTGRES", "postgresql://u:p%40@a:5432,b/db?target_session_attrs=any"),
        ("TICKWELL_POSTGRES", "postgresql://u@h/db?sslmode=verify-full&sslrootcert=system"),
    ],
)
def test_a_url_that_clients_read_alike_is_taken(variable: str, value: str) -> None:
    Settings.load({variable: value})


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TICKWELL_REDIS", "rediss://h:6379/0?ssl_ca_certs=/no/ca.pem", "/no/ca.pem cannot be"),
        ("TICKWELL_POSTGRES", "postgresql://u@h/db?sslrootcert=/no/ca.pem", "/no/ca.pem cannot"),
        ("TICKWELL_POSTGRES", "postgresql://u@h/db?sslmod=require", 'parameter: "sslmod"'),
        ("TICKWELL_POSTGRES", "postgresql://u:p/x?hidden@h/db", "write / as %2F, @ as %40"),
    ],
)
def test_what_libpq_and_redis_would_not_take_is_told(variable: str, value: str, said: str) -> None:
    with pytest.raises(SettingError, match=variable) as error:
        Settings.load({variable: value})
    assert said in str(error.value)
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        *(("redis://h", True), ("rediss://h:1/0", True), ("redis://h/?db=0", True)),
        *(("redis://h/1", False), ("redis://h/?db=2", False), ("unix:///run/redis", False)),
    ],
)
def test_a_cluster_has_one_database_and_no_socket_of_a_file(url: str, taken: bool) -> None:
    Settings.load({"TICKWELL_REDIS": url})
    if taken:
        Settings.load({"TICKWELL_REDIS": url, "TICKWELL_CLUSTER": "true"})
    else:
        with pytest.raises(SettingError, match=r"TICKWELL_REDIS.*database 0 alone"):
            Settings.load({"TICKWELL_REDIS": url, "TICKWELL_CLUSTER": "true"})


def test_what_is_needed_and_not_set() -> None:
    with pytest.raises(TickwellError, match="TICKWELL_KAFKA is not set"):
        Settings.load({}).need("kafka")


@contextmanager
def running(data: Path, addresses: Mapping[str, str] = STACK) -> Iterator[None]:
    """A stack that is up on a directory, as others see it."""
    with state.locked(data):
        state.write(data, State(os.getpid(), "running", (), dict(addresses)))
        yield


def addresses(settings: Settings) -> dict[str, str]:
    return {f"TICKWELL_{name.upper()}": getattr(settings, name) for name in ADDRESSES}


def nobody() -> list[Path]:
    return []


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, an empty one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_stack_of_the_directory_is_found(here: Path) -> None:
    with running(here / "data"), running(here / "other", {"TICKWELL_URL": "http://h:6"}):
        assert addresses(Settings.of_stack({}, seen=nobody)) == STACK
        kept = Settings.of_stack({"TICKWELL_PORT": "9", "TICKWELL_KAFKA": ""}, capacity=6_400)
        assert (addresses(kept), kept.port, kept.capacity) == (STACK, 9, 6_400)
        named = Settings.of_stack({"TICKWELL_DATA": "other"}, seen=nobody)
        assert named.url == "http://h:6"


@pytest.mark.parametrize("variable", sorted(STACK))
def test_an_address_that_is_named_is_not_mixed_with_others(variable: str, here: Path) -> None:
    named = {variable: STACK[variable].replace("127.0.0.1", "10.0.0.1")}
    with running(here / "data"):
        assert Settings.of_stack(named, seen=nobody) == Settings.load(named)
        (here / "secret").write_text(named[variable])
        in_a_file = {f"{variable}_FILE": str(here / "secret")}
        assert Settings.of_stack(in_a_file, seen=nobody) == Settings.load(named)
        flag = Settings.of_stack({}, seen=nobody, url="http://10.0.0.1:7")
        assert (flag.url, flag.kafka) == ("http://10.0.0.1:7", "")


def test_what_runs_elsewhere_is_named_and_not_taken(here: Path) -> None:
    others = [here / "a", here / "b"]
    with pytest.raises(NotRunning, match=f"nothing runs on data: .*{others[0]}, {others[1]}$"):
        Settings.of_stack({}, seen=lambda: others)
    assert Settings.of_stack({}, seen=lambda: others[:1]) == Settings()
    assert Settings.of_stack({}, seen=nobody) == Settings()
    for seen in (others[:1], []):
        with pytest.raises(NotRunning, match="nothing runs on none: start it with"):
            Settings.of_stack({"TICKWELL_DATA": "none"}, seen=lambda seen=seen: seen)


def test_a_stack_that_still_starts_is_waited_for(here: Path) -> None:
    with running(here / "data", {}), pytest.raises(TickwellError, match="still starting"):
        Settings.of_stack({}, seen=nobody)


def test_what_is_needed_and_found_nowhere(here: Path) -> None:
    with pytest.raises(TickwellError, match=r"_KAFKA is not set, and nothing runs on data: start"):
        Settings.of_stack({}, seen=nobody).need("kafka")
    with running(here / "data"):
        beside = Settings.of_stack({"TICKWELL_URL": "http://h"}, seen=nobody)
        with pytest.raises(TickwellError, match=r'_KAFKA is not set: eval "\$\(tickwell env\)"'):
            beside.need("kafka")


@pytest.mark.parametrize(
    ("host", "elsewhere"),
    [
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("10.0.0.1", True),
        ("features.example", True),
    ],
)
def test_answers_are_compressed_on_the_way_to_other_machines(host: str, elsewhere: bool) -> None:
    named = {"TICKWELL_HOST": host}
    assert Settings.load(named).compresses is elsewhere
    for told, expected in (("on", True), ("off", False)):
        assert Settings.load({**named, "TICKWELL_COMPRESS": told}).compresses is expected
    with pytest.raises(SettingError, match="TICKWELL_COMPRESS"):
        Settings.load({"TICKWELL_COMPRESS": "gzip"})


@pytest.mark.parametrize("variable", ["TICKWELL_HISTORY", "TICKWELL_HISTORY_FILE"])
def test_what_was_a_setting_is_passed_over_and_said(variable: str) -> None:
    """Whatever it holds: it is not read."""
    environment = {variable: "/nowhere/secret", "TICKWELL_PORT": "9000"}
    assert Settings.load(environment) == Settings.load({"TICKWELL_PORT": "9000"})
    (line,) = moved(environment)
    assert line.startswith(f"{variable} is passed over: it is `history` of each [[source]]")
    assert "\n" not in line
    assert "secret" not in line
    assert moved({"TICKWELL_PORT": "9000"}) == []
