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
