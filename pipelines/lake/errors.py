"""What can be wrong with the lake."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import PipelineError


class ExportElsewhere(PipelineError):
    """Another process writes the lake."""

    def __init__(self) -> None:
        super().__init__(
            "another process exports to the lake of this database: wait for it, or stop it"
        )


class NoLake(PipelineError):
    """There is no lake in a folder."""

    def __init__(self, lake: Path) -> None:
        super().__init__(
            f"there is no lake in {lake}: `tickwell lake export` writes one; TICKWELL_LAKE, or "
            "--lake, says where"
        )


class ColumnsAlike(PipelineError):
    """Two columns of a source's files would have one name."""

    def __init__(self, source: str, name: str) -> None:
        super().__init__(
            f"two columns of the files of {source} would be called {name}: a field of the source "
            "is named as the column of a version's values"
        )


class OtherFields(PipelineError):
    """A row has other numbers of fields or features than its source and row schema."""

    def __init__(self, source: str, schema_id: int) -> None:
        super().__init__(
            f"rows of {source} in row schema {schema_id} have another number of fields or features "
            "than is recorded: nothing of their day was written"
        )


class NotWritten(PipelineError):
    """A file could not be written, as on a full disk."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"{path} could not be written: {error}; the lake is as it was, and the same command "
            "goes on"
        )


class Stopped(Exception):
    """It was stopped before its end."""
