"""Logs as JSON, one object a line, for whoever collects them.

It is the standard library's `logging` with a formatter: every library that we use logs by it, so
what another one would write would have to be joined with that again. JSON is written by the
standard library as well, since that takes any text (`msgspec` refuses half a surrogate pair, which
stands for a byte in the name of a file that is not UTF-8).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

FIELDS = "fields"
"""The attribute of a record, or of the exception in it, with more fields (a mapping)."""

TEXT_CHARACTERS = 20_000
"""Characters of a message or a traceback; of a longer one the end is kept."""


class JsonLines(logging.Formatter):
    """Makes a record one line: `time`, `level`, `logger`, `message`, then its fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[-TEXT_CHARACTERS:],
        }
        error = record.exc_info[1] if record.exc_info else None
        for holder in (error, record):
            fields = getattr(holder, FIELDS, None)
            if isinstance(fields, Mapping):
                line |= {name: value for name, value in fields.items() if name not in line}
        if record.exc_info and error is not None:
            line["exception"] = self.formatException(record.exc_info)[-TEXT_CHARACTERS:]
        return json.dumps(line, default=str)


def configure(stream: TextIO | None = None) -> None:
    """Write warnings and errors to `stream`, the standard error unless given."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
