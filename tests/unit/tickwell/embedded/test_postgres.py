"""What the embedded Postgres changes outside its directory."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tickwell.embedded import postgres


def test_folders_that_are_opened_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root; nothing is run, and no user is made."""
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 0)
    monkeypatch.setattr(postgres, "_ensure_user", lambda name: None)
    monkeypatch.setattr(postgres.shutil, "chown", lambda *_: None)
    monkeypatch.setattr(postgres, "_make_cluster", lambda *_: None)
    said: list[str] = []
    with TemporaryDirectory() as place:
        binaries = Path(place) / "wheel"
        monkeypatch.setattr(postgres, "_binaries", lambda: binaries)
        for _ in range(2):
            postgres.postgres(Path(place).resolve() / "data", said.append)
        assert Path(place).stat().st_mode & 0o007 == 0o001
        (line,) = said
        assert place in line
