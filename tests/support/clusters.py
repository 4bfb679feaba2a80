"""Servers of the embedded PostgreSQL in open and closed folders."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from tickwell.embedded.postgres import postgres
from tickwell.up.process import Process, Spec


class Folders:
    """An open folder with a closed one in it, and a directory for what cannot be reached there."""

    def __init__(self, folder: Path) -> None:
        self.open = folder
        self.closed = folder / "clo sed"
        self.closed.mkdir(mode=0o700)
        self.elsewhere = folder / "elsewhere"
        self.said: list[str] = []

    def make(self, data: Path) -> tuple[Spec, str]:
        return postgres(data, self.said.append, self.elsewhere)

    @contextmanager
    def server(self, data: Path) -> Iterator[tuple[Process, str]]:
        spec, url = self.make(data)
        process = Process(spec)
        process.start()
        try:
            process.wait_ready()
            yield process, url
        finally:
            process.stop()

    def write(self, data: Path, value: int) -> Path | None:
        """Keep a value in the database of `data`; returns its directory when that is elsewhere."""
        with self.server(data) as (process, url):
            execute(url, "CREATE TABLE kept AS SELECT %s AS value", value)
            return process.spec.directory

    def read(self, data: Path) -> int:
        with self.server(data) as (_, url):
            return execute(url, "SELECT value FROM kept")


@contextmanager
def folders() -> Iterator[Folders]:
    """New ones, which are deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tickwell-folders-")).resolve()
    folder.chmod(0o755)
    try:
        yield Folders(folder)
    finally:
        shutil.rmtree(folder)


def execute(url: str, statement: str, *arguments: object) -> int:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, arguments)
            return int(cursor.fetchone()[0]) if cursor.description else 0
    finally:
        connection.close()
