"""Logs as JSON lines."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tickwell import json_logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    made = io.StringIO()
    json_logs.configure(made)
    yield made
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_an_object_with_the_fields_of_its_record(stream: io.StringIO) -> None:
    logger = logging.getLogger("some.module")
    logger.info("not of interest")
    logger.warning("a\n%s", "b", extra={"fields": {"key": "model", "status": 401, "message": "x"}})
    (line,) = lines(stream)
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "level": "warning",
        "logger": "some.module",
        "message": "a\nb",
        "key": "model",
        "status": 401,
    }


def test_an_exception_is_in_its_line_with_its_fields(stream: io.StringIO) -> None:
    error = ValueError("a bug")
    setattr(error, "fields", {"key": "model"})  # noqa: B010
    try:
        raise error
    except ValueError:
        logging.getLogger("some.server").exception("Exception in ASGI application")
    (line,) = lines(stream)
    assert line["key"] == "model"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: a bug")


def test_what_no_json_can_hold_and_what_is_long(stream: io.StringIO) -> None:
    fields = {"what": object, "text": "\ud800"}
    logging.getLogger("a").error("x" * 100_000, extra={"fields": fields})
    logging.getLogger("a").error("next", extra={"fields": "no mapping"})
    assert [len(line["message"]) for line in lines(stream)] == [20_000, 4]


def test_warnings_of_python_are_lines_too(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        json_logs.configure(stream)
        warnings.warn("old", UserWarning, stacklevel=1)
    (line,) = lines(stream)
    assert (line["logger"], "old" in line["message"]) == ("py.warnings", True)
