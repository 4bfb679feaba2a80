"""Files of object stores and web servers, copied here before they are read.

A file is read more than once, and by several readers, so it is copied as a whole, block by block.
Arrow's own file systems know `s3`, `gs`, `abfs` and `hdfs`; every other scheme is fsspec's, if it
and what it needs for the scheme are installed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.errors import PipelineError
from pipelines.produce.errors import Mistaken
from pipelines.produce.file_names import is_table

SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://")
OF_ARROW = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file")
BLOCK_BYTES = 1 << 20
REMOTE = "tickwell[remote]"
"""The optional packages that read other schemes."""


def is_remote(name: str) -> bool:
    """Whether a name is a URL."""
    return SCHEME.match(name) is not None


def fetch(url: str, directory: Path) -> list[Path]:
    """Copies of the file that a URL names, or of the tables of a folder, in the order of names.

    Raises `Mistaken` for a URL that names none, and `PipelineError` where it cannot be read.
    """
    match = SCHEME.match(url)
    assert match is not None, "the caller looked"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        copies = _by_arrow if match[1] in OF_ARROW else _by_fsspec
        found = copies(url, directory)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise PipelineError(f"{_plain(url)} cannot be read: {_without(url, error)}") from None
    if not found:
        raise Mistaken(f"{_plain(url)}: there is no such file, and no folder of files to load")
    return found


def _by_arrow(url: str, directory: Path) -> list[Path]:
    from pyarrow import fs

    system, path = fs.FileSystem.from_uri(url)
    info = system.get_file_info(path)
    if info.type == fs.FileType.Directory:
        inside = system.get_file_info(fs.FileSelector(path))
        paths = sorted(one.path for one in inside if one.is_file and is_table(one.base_name))
    else:
        paths = [path] if info.type == fs.FileType.File else []
    return [_copied(system.open_input_stream(one), one, directory) for one in paths]


def _by_fsspec(url: str, directory: Path) -> list[Path]:
    try:
        import fsspec

        opened: Any = fsspec.open_files(url, "rb", expand="*" in url)  # `?` begins a query
    except ImportError as error:
        raise Mistaken(
            f"{_plain(url)}: its scheme needs a package that is not installed ({error}): pip "
            f"install '{REMOTE}' and what else is missing, or copy the file here"
        ) from None
    try:
        return [_copied(one.open(), one.path, directory) for one in opened]
    except Exception as error:  # each of its file systems has errors of its own
        cause = _first_cause(error)
        if isinstance(cause, FileNotFoundError):
            return []
        raise OSError(cause) from None


def _copied(opened: Any, path: str, directory: Path) -> Path:
    """A copy of an open file, with its own name in a folder of its own."""
    folder = directory / str(len(list(directory.iterdir())))
    folder.mkdir()
    copy = folder / (path.partition("?")[0].rstrip("/").rpartition("/")[2] or "file")
    with opened, copy.open("wb") as written:
        shutil.copyfileobj(opened, written, BLOCK_BYTES)
    return copy


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _without(url: str, error: Exception) -> str:
    """What an error says, without what may be a secret of the URL that it names."""
    query = url.partition("?")[2]
    said = str(error).replace(url, _plain(url))
    return (said.replace(query, "…") if query else said) or type(error).__name__


def _plain(url: str) -> str:
    """A URL without what may be a password."""
    return re.sub(r"//[^/@]*@", "//***@", url.partition("?")[0])
