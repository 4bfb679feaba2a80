"""`tickwell replay` says in one line what cannot be meant or reached."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest


def refused() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from-time", "2026-11-24T09:00:00"], "--from-time 2026-11-24T09:00:00: not a time "),
        (["--to-time", "yesterday"], "--to-time yesterday: not a time since 1970 with its zone"),
        ([], "TICKWELL_POSTGRES: connection to server"),
        (["--forget", "price"], "--forget price: it is the id of a load, or the beginning of it"),
        (["--forget", "3f2a91c0", "--dry-run"], "--forget removes rows at once: it goes without "),
    ],
)
def test_one_line(arguments: list[str], says: str) -> None:
    address = refused()
    done = subprocess.run(
        [sys.executable, "-m", "tickwell", "replay", *arguments],
        env={"TICKWELL_KAFKA": address, "TICKWELL_POSTGRES": f"postgresql://a:b@{address}/c"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"tickwell: {says}")
    assert done.stderr.count("\n") == 1
