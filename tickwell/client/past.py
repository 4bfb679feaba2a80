"""What features were at moments of the past: questions to a server, or joins in this process.

A server joins what fits into one request; more is joined here, by the same code, and needs Postgres
in place of the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

import msgspec

from registry.definitions import SET_PREFIX
from serving.api.offline import MOST_CELLS, MOST_ROWS
from tickwell.client.batch import imported
from tickwell.client.entity_frames import EntityFrame, check_free
from tickwell.client.errors import ClientError
from tickwell.client.questions import ARROW, Question, names_of
from tickwell.client.values import FeatureInfo
from tickwell.current_user import current_user
from tickwell.errors import one_line
from tickwell.settings import Settings

if TYPE_CHECKING:
    from serving.history.wanted import Wanted

DEADLINE_SECONDS = 60.0
"""Seconds that a server may take for a training set, unless the call is told otherwise."""

PATH = "/features/offline"
Stale = Literal["keep", "null"]
Versions = Literal["active", "as_served"]


@dataclass(frozen=True, slots=True)
class PastOptions:
    """How moments are read, and what is wanted beside values and statuses."""

    time_column: str
    timezone: str | None = None
    as_known_at: datetime | None = None
    delay: timedelta | str | None = None
    versions: Versions = "active"
    stale: Stale = "keep"
    event_times: bool = False
    allow_open: bool = False
    name: str | None = None

    @property
    def known_at(self) -> str | None:
        """When what counts was known, RFC 3339. Raises ValueError."""
        if self.as_known_at is None:
            return None
        if self.as_known_at.tzinfo is None:
            raise ValueError(f"as_known_at={self.as_known_at!r} has no time zone")
        return self.as_known_at.isoformat()

    @property
    def delay_text(self) -> str | None:
        """How long before each moment ticks had to be known, as 250ms."""
        if isinstance(self.delay, timedelta):
            return f"{self.delay // timedelta(microseconds=1)}us"
        return self.delay


def is_for_server(frame_rows: int, feature_names: Sequence[str], name: str | None = None) -> bool:
    """Whether a server takes so many rows at once; what is in a set is not known before.

    It keeps no training set by a name.
    """
    if name is not None:
        return False
    return frame_rows <= MOST_ROWS and frame_rows * len(names_of(feature_names)) <= MOST_CELLS


def pinned(feature_names: Sequence[str], known: Iterable[FeatureInfo]) -> list[str]:
    """The versions that are named and are not among those that are active."""
    active = {f"{feature.name}@{feature.version}" for feature in known}
    return [
        name
        for name in names_of(feature_names)
        if "@" in name and not name.startswith(SET_PREFIX) and name not in active
    ]


def key_columns(frame: EntityFrame, known: Iterable[FeatureInfo], time_column: str) -> list[str]:
    """The columns that say which entity a row is of, and when: nothing else is sent."""
    _check_moments(frame, time_column)
    fields = {field for feature in known for field in feature.entity}
    return [name for name in frame.names if name in fields or name == time_column]


def _check_moments(frame: EntityFrame, time_column: str) -> None:
    """Raises ValueError where there is no such column of moments."""
    if time_column not in frame.names:
        raise ValueError(
            f"entity_df has no column {time_column!r}: name that of the moments, "
            "event_timestamp_col=…"
        )


def question(table: Any, feature_names: Sequence[str], options: PastOptions) -> Question[Any]:
    """What a server is asked; the answer is a table of Arrow."""
    pa = imported("pyarrow", "pyarrow")
    asked = [("feature", name) for name in names_of(feature_names)]
    settings = {
        "time_column": options.time_column,
        "timezone": options.timezone,
        "as_known_at": options.known_at,
        "delay": options.delay_text,
        "versions": options.versions,
        "stale": options.stale,
        "event_times": "true" if options.event_times else "false",
        "allow_open": "true" if options.allow_open else "false",
    }
    asked += [(name, value) for name, value in settings.items() if value is not None]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    body = sink.getvalue().to_pybytes()
    path = f"{PATH}?{urlencode(asked)}"
    return Question("POST", path, body, ARROW, _read, content_type=ARROW)


def _read(body: bytes) -> Any:
    pa = imported("pyarrow", "pyarrow")
    try:
        with pa.ipc.open_stream(body) as stream:
            return stream.read_all()
    except pa.ArrowException as error:
        raise msgspec.ValidationError(f"it is no answer in Arrow: {error}") from None


def joined_here(frame: EntityFrame, feature_names: Sequence[str], options: PastOptions) -> Any:
    """The columns that are added to a frame's rows, joined in this process.

    Raises `ClientError`.
    """
    pa = imported("pyarrow", "pyarrow")
    from sqlalchemy.exc import DBAPIError

    from registry.errors import RegistryError
    from registry.lifecycle.audit import By
    from serving.errors import ServingError
    from serving.history.named import Keeper, Keeping, check_name
    from serving.history.snapshot import LakeReads, snapshot
    from serving.history.wanted import SetJoin

    _check_moments(frame, options.time_column)
    keeping = None if options.name is None else Keeping(options.name, By(current_user()))
    settings = Settings.of_stack()
    settings.need("postgres")
    try:
        wanted = _wanted(feature_names, options)
        if keeping is not None:
            check_name(settings.postgres, keeping.name)
        lake = LakeReads(settings.lake_path)
        with snapshot(settings.postgres, lake=lake) as seen, ExitStack() as stack:
            join = SetJoin(seen, wanted)
            form, fields = wanted.form, join.join.key_fields
            check_free(frame.names, [c for name in join.join.versions for c in form.columns(name)])
            missing = [field for field in fields if field not in frame.names]
            if missing:
                raise ClientError(f"entity_df has no column {missing[0]!r}, a key field")
            table = frame.columns([*fields, options.time_column])
            join.check([table])
            keeper = None if keeping is None else stack.enter_context(Keeper(join))
            n, most = table.num_rows, join.rows_a_piece
            pieces = [table.slice(first, most) for first in range(0, n, most)]
            stack.enter_context(join.sweeping(pieces, n))
            parts = [join.added(piece) for piece in pieces]
            if keeper is not None and keeping is not None:
                keeper.save(settings.postgres, keeping)
    except (ServingError, RegistryError) as error:
        raise ClientError(str(error)) from None
    except DBAPIError as error:
        raise ClientError(f"TICKWELL_POSTGRES: {one_line(error.orig)}") from None
    return pa.concat_tables(parts)


def _wanted(feature_names: Sequence[str], options: PastOptions) -> Wanted:
    """What the options say. Raises `InvalidRequest`."""
    from serving.history.moments import delay_of, known_by
    from serving.history.wanted import Wanted

    at = options.known_at
    return Wanted(
        names_of(feature_names),
        options.time_column,
        options.timezone,
        None if at is None else known_by("as_known_at", at),
        delay_of("delay", options.delay),
        options.versions,
        options.stale,
        options.event_times,
        options.allow_open,
    )


def added_columns(feature_names: Sequence[str], options: PastOptions) -> list[str]:
    """The columns that are added for features which are no sets."""
    from serving.history.training_set import Form

    form = Form(options.stale, options.event_times, options.versions == "as_served")
    plain = [name for name in names_of(feature_names) if not name.startswith(SET_PREFIX)]
    return [column for name in plain for column in form.columns(name)]
