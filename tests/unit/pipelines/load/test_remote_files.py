"""Files of web servers, copied before they are loaded."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.errors import PipelineError
from pipelines.load.remote_files import fetch
from pipelines.produce.errors import Mistaken
from tickwell.embedded.ports import HOST

TABLE = "symbol,price,ts\nA,1,1700000000000\n"


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address of a web server that has `t.csv`."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "t.csv").write_text(TABLE)
    handler = functools.partial(_Handler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer((HOST, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"{HOST}:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_copy_has_the_name_without_the_query(site: str, tmp_path: Path) -> None:
    (copy,) = fetch(f"http://ann:secret@{site}/t.csv?signature=secret", tmp_path / "copies")
    assert copy.name == "t.csv"
    assert copy.read_text() == TABLE


def test_what_cannot_be_read_is_said_without_a_password(site: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="404") as none:
        fetch(f"http://ann:secret@{site}/none.csv?signature=secret", tmp_path / "copies")
    assert "secret" not in str(none.value)
    with pytest.raises(Mistaken, match=r"a package that is not installed.*paramiko"):
        fetch("sftp://ann:secret@example.invalid/t.csv", tmp_path / "copies")
    with pytest.raises(PipelineError, match="Protocol not known"):
        fetch("nowhere://t.csv", tmp_path / "copies")
