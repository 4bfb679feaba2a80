"""The process in which questions about the past are answered, one after the other.

A join takes whole seconds of a core and tens of megabytes; in the process of a server it would hold
up what is asked of the present. It reads a question, writes its answer, and ends when nothing more
can be read, as when the server is killed.

    message = length (4 bytes, big-endian), MessagePack
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_DATA, getpagesize, getrlimit, setrlimit
from typing import IO

import msgspec
from sqlalchemy.exc import DBAPIError

from registry.errors import RegistryEmpty
from serving.api.arrow import MEDIA_TYPE
from serving.api.offline import (
    SIZE_BYTES,
    Asked,
    OfflineQuestion,
    OfflineReply,
    asked_in_arrow,
    asked_in_json,
    check_size,
    in_arrow,
    in_json,
)
from serving.errors import NotReady, ServingError, StoresUnavailable, TooLarge
from serving.history.moments import delay_of, known_by
from serving.history.snapshot import LakeReads, snapshot
from serving.history.training_set import check_columns
from serving.history.wanted import SetJoin, Wanted

NICE = 5
"""How much rather the processes are served that answer what is asked of the present."""


MOST_MEMORY = 3 << 29
"""Bytes that questions may take: a few bytes of one may say that they are many. What is within the
other limits takes half of it."""

STATUS = Path("/proc/self/statm")
"""Pages of memory that a process has, those of its data in the sixth place; there is none but on
Linux, which alone bounds them."""


def main() -> None:
    """Answer what is asked on stdin, on stdout."""
    os.nice(NICE)
    _bound_memory()
    questions, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while (message := read_message(questions)) is not None:
        reply = _reply(msgspec.msgpack.decode(message, type=OfflineQuestion))
        encoded = msgspec.msgpack.encode(reply)
        replies.write(len(encoded).to_bytes(SIZE_BYTES) + encoded)
        replies.flush()


def _bound_memory() -> None:
    """Let what takes too much memory be an error, before the system ends other processes."""
    if not STATUS.exists():
        return
    most = int(STATUS.read_text().split()[5]) * getpagesize() + MOST_MEMORY
    _, allowed = getrlimit(RLIMIT_DATA)
    if allowed == RLIM_INFINITY or allowed > most:
        setrlimit(RLIMIT_DATA, (most, allowed))


def read_message(stream: IO[bytes]) -> bytes | None:
    """The next message; None where there is none, or its end does not come."""
    size = stream.read(SIZE_BYTES)
    if len(size) < SIZE_BYTES:
        return None
    message = stream.read(int.from_bytes(size))
    return message if len(message) == int.from_bytes(size) else None


def _reply(question: OfflineQuestion) -> OfflineReply:
    try:
        return OfflineReply(_answer(question))
    except ServingError as error:
        return _told(error)
    except MemoryError:
        return _told(TooLarge("the rows take more memory than a question may: ask in parts"))
    except RegistryEmpty as error:
        return _told(NotReady(str(error)))
    except DBAPIError as error:
        said = str(error.orig).strip().split("\n")[0]
        print(f"a question about the past failed: {said}", file=sys.stderr)
        return _told(
            StoresUnavailable("Postgres, which has the history, did not answer: ask again")
        )


def _told(error: ServingError) -> OfflineReply:
    context = {name: value for name, value in error.context.items() if _is_plain(value)}
    return OfflineReply(
        error=type(error).__name__,
        detail=error.detail,
        context=context,  # type: ignore[arg-type]
    )


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | list)


def _answer(question: OfflineQuestion) -> bytes:
    asked = _asked(question)
    check_size(asked.table.num_rows, len(asked.features))
    wanted = Wanted(
        asked.features,
        asked.time_column,
        asked.timezone,
        None if asked.as_known_at is None else known_by("as_known_at", asked.as_known_at),
        delay_of("delay", asked.delay),
        asked.versions,
        asked.stale,
        asked.event_times,
        asked.allow_open,
    )
    lake = LakeReads(None if question.lake is None else Path(question.lake))
    with snapshot(question.postgres, lake=lake) as seen:
        join = SetJoin(seen, wanted)
        check_size(asked.table.num_rows, len(join.join.versions))  # a set is several
        check_columns(asked.table.schema.names, list(join.join.versions), wanted.form)
        join.check([asked.table])
        with join.sweeping([asked.table], asked.table.num_rows):
            table = join.added(asked.table)
    if question.wants_arrow:
        return in_arrow(table, join.report.open)
    return in_json(join.report.versions, table, join.report.open)


def _asked(question: OfflineQuestion) -> Asked:
    kind = question.content_type.partition(";")[0].strip().lower()
    if kind == MEDIA_TYPE:
        return asked_in_arrow(question.body, question.query)
    return asked_in_json(question.body, question.query)


if __name__ == "__main__":
    main()
