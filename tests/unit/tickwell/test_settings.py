"""Settings: from the environment, from files, from flags; errors name the variable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tickwell.errors import SettingError, TickwellError
from tickwell.settings import Settings


def test_a_flag_wins_over_the_environment() -> None:
    environment = {"TICKWELL_PORT": "9000", "TICKWELL_HISTORY": "2048"}
    settings = Settings.load(environment, port=9001)
    assert (settings.port, settings.history, settings.host) == (9001, 2048, "127.0.0.1")


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
        ("TICKWELL_KAFKA", "localhost"),
        ("TICKWELL_REDIS", "localhost:6379"),
        ("TICKWELL_REDIS", "redis://[secret@h"),
        ("TICKWELL_POSTGRES", "mysql://secret@h/d"),
        ("TICKWELL_HISTORY", "10"),
        ("TICKWELL_PARTITIONS", "0"),
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
        ("TICKWELL_POSTGRES", "postgresql://u:pass@h:/db"),
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
    ],
)
def test_a_url_that_clients_read_alike_is_taken(variable: str, value: str) -> None:
    Settings.load({variable: value})


def test_what_is_needed_and_not_set() -> None:
    with pytest.raises(TickwellError, match="TICKWELL_KAFKA is not set"):
        Settings.load({}).need("kafka")
