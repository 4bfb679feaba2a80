"""What a person is told of an error, and what is a mistake of ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from psycopg2.errors import InsufficientPrivilege, SyntaxError
from sqlalchemy.exc import ProgrammingError

from tickwell import cli
from tickwell.commands.down import down
from tickwell.errors import TickwellError
from tickwell.up import state


def test_a_role_without_rights_is_said() -> None:
    refused = ProgrammingError("SELECT", None, InsufficientPrivilege("no rights\n"))
    assert cli.message_for(refused) == "TICKWELL_POSTGRES: no rights"
    assert cli.message_for(ProgrammingError("SELCT", None, SyntaxError("at SELCT"))) is None


def test_another_users_up_is_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    with state.locked(tmp_path), pytest.raises(TickwellError, match="another user's"):
        down(str(tmp_path))


def test_a_variable_that_is_no_setting_any_more_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And stops nothing."""
    monkeypatch.setenv("TICKWELL_HISTORY", "10")
    monkeypatch.setattr("sys.argv", ["tickwell", "--version"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 0
    assert told.err.startswith("tickwell: TICKWELL_HISTORY is passed over: it is `history` of")
    assert told.err.count("\n") == 1
