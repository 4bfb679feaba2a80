"""How Postgres is reached."""

from __future__ import annotations

import socket

import pytest
from sqlalchemy.exc import OperationalError

from registry import database


def test_a_server_that_accepts_and_never_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An online worker goes on with its copy of the catalog then."""
    monkeypatch.setattr(database, "CONNECT_SECONDS", 2)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        engine = database.connect(f"postgresql://x@127.0.0.1:{port}/x")
        with pytest.raises(OperationalError, match="timeout expired"):
            engine.connect()
