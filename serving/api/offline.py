"""Questions about the past: features of entities at moments, for training sets.

A question comes as JSON, or as a stream of Arrow IPC whose columns are key fields and moments, with
everything else in the URL. `serving.api.offline_process` answers it, outside of the process that
serves what is new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import msgspec
import numpy as np
from msgspec import Meta, Struct

from registry.formats.status import Status
from serving.api.requests import Entity, Features, Text, parse
from serving.errors import InvalidRequest, TooLarge
from serving.features.lookup import MAX_FEATURES

MOST_ROWS = 100_000
"""Entity rows of a question. What is more is joined by `tickwell training-set build`."""

MOST_CELLS = 2_000_000
"""Rows times features of a question: its answer has 18 MB at most."""

MOST_BODY_BYTES = 8_388_608

MOST_FIELDS = 64
"""Key fields of all entities of a question: each is a column, of as many rows as entities."""

MOMENT = "timestamp"
"""The column of moments, unless another one is named."""

LONGEST_QUERY = 16_384

OPEN = "tickwell.open"
"""The key of an answer's metadata that say how many rows may be others later."""

SIZE_BYTES = 4
"""Bytes before a message between the two processes: its size, big-endian."""

Moment = Annotated[str, Meta(min_length=1, max_length=64)]
Duration = Annotated[str, Meta(min_length=1, max_length=16)]
Flag = Literal["", "true", "false"]
"""What stands behind a question mark: the name alone says true."""


class OfflineRequest(Struct, forbid_unknown_fields=True):
    """Features of entities, each at the moment in its place in `timestamps` (RFC 3339).

    With `as_known_at` each has what was known of its moment then, else what was known at it, or a
    `delay` (as 250ms) before. With `versions="as_served"` a name means in each row the version that
    was served then, else the one that is active now. With `stale="null"` a value that was too old
    is null. `event_times` adds those of the values. A question whose answer may change, once more
    is stored, is answered with `allow_open`.
    """

    features: Features
    entities: Annotated[list[Entity], Meta(min_length=1, max_length=MOST_ROWS)]
    timestamps: Annotated[list[Moment], Meta(min_length=1, max_length=MOST_ROWS)]
    as_known_at: Moment | None = None
    delay: Duration | None = None
    versions: Literal["active", "as_served"] = "active"
    stale: Literal["keep", "null"] = "keep"
    event_times: bool = False
    allow_open: bool = False


class OfflineColumn(Struct, omit_defaults=True):
    """A feature of the rows of a question, in their order; event times in nanoseconds UTC.

    `version` is `as_served` where `versions` has that of each row, null where there was none yet.
    """

    version: str
    values: list[float | None]
    statuses: list[Status]
    event_times: list[int | None] | None = None
    versions: list[str | None] | None = None


class OfflineAnswer(Struct):
    """The features, by the names that were requested. `open` rows may be others later."""

    rows: int
    features: dict[str, OfflineColumn]
    open: int = 0


class Asked(Struct):
    """A question as it is joined; `table` is one of Arrow."""

    features: Sequence[str]
    table: Any
    time_column: str = MOMENT
    timezone: str | None = None
    as_known_at: str | None = None
    delay: str | None = None
    versions: Literal["active", "as_served"] = "active"
    stale: Literal["keep", "null"] = "keep"
    event_times: bool = False
    allow_open: bool = False


class ArrowSettings(Struct, forbid_unknown_fields=True):
    """What a URL says of a question whose rows come in Arrow."""

    feature: Features
    time_column: Text = MOMENT
    timezone: Text | None = None
    as_known_at: Moment | None = None
    delay: Duration | None = None
    versions: Literal["active", "as_served"] = "active"
    stale: Literal["keep", "null"] = "keep"
    event_times: Flag = "false"
    allow_open: Flag = "false"


class OfflineQuestion(Struct):
    """What a client has sent, for the process that answers it."""

    postgres: str
    lake: str | None
    """The folder of the lake."""
    content_type: str
    query: str
    wants_arrow: bool
    body: bytes


class OfflineReply(Struct):
    """The answer, or which of `serving.errors` there was."""

    content: bytes = b""
    error: str | None = None
    detail: str = ""
    context: dict[str, str | list[str] | None] = {}


def asked_in_json(body: bytes, query: str) -> Asked:
    """The question of a body in JSON. Raises `InvalidRequest` and `TooLarge`."""
    import pyarrow as pa

    if query:
        raise InvalidRequest("beside JSON this route takes nothing behind a question mark")
    given = parse(body, OfflineRequest)
    if len(given.timestamps) != len(given.entities):
        raise InvalidRequest(
            f"there are {len(given.entities)} entities and {len(given.timestamps)} timestamps: "
            "each entity needs its moment"
        )
    fields = dict.fromkeys(field for entity in given.entities for field in entity)
    if len(fields) > MOST_FIELDS:
        raise TooLarge(
            f"the entities have {len(fields):,} key fields; at most {MOST_FIELDS} are read"
        )
    if MOMENT in fields:
        raise InvalidRequest(f"{MOMENT} is no key field: moments stand in `timestamps`")
    columns = {
        field: pa.array([entity.get(field) for entity in given.entities], pa.string())
        for field in fields
    }
    columns[MOMENT] = pa.array(given.timestamps, pa.string())
    return Asked(
        given.features,
        pa.table(columns),
        as_known_at=given.as_known_at,
        delay=given.delay,
        versions=given.versions,
        stale=given.stale,
        event_times=given.event_times,
        allow_open=given.allow_open,
    )


def asked_in_arrow(body: bytes, query: str) -> Asked:
    """The question of a body in Arrow, and of a URL. Raises `InvalidRequest` and `TooLarge`."""
    import pyarrow as pa

    if len(query) > LONGEST_QUERY:
        raise TooLarge(f"what stands behind the question mark has over {LONGEST_QUERY} characters")
    given: dict[str, Any] = {"feature": []}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "feature":
            given["feature"].append(value)
        elif name in given:
            raise InvalidRequest(f"{name} stands twice behind the question mark")
        else:
            given[name] = value
    try:
        settings = msgspec.convert(given, ArrowSettings)
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f"{error}, behind the question mark: name up to {MAX_FEATURES} features, as "
            "?feature=price_sma_5&feature=current_price"
        ) from None
    try:
        with pa.ipc.open_stream(body) as stream:
            table = stream.read_all()
        table.validate(full=True)
    except MemoryError:  # is one of Arrow's, too
        raise
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(f"the body is no stream of Arrow IPC: {error}") from None
    return Asked(
        settings.feature,
        table,
        settings.time_column,
        settings.timezone,
        settings.as_known_at,
        settings.delay,
        settings.versions,
        settings.stale,
        settings.event_times != "false",
        settings.allow_open != "false",
    )


def check_size(rows: int, features: int) -> None:
    """Raises `TooLarge`."""
    if rows > MOST_ROWS or rows * features > MOST_CELLS:
        raise TooLarge(
            f"{rows:,} rows with {features} features are more than {MOST_ROWS:,} rows, or "
            f"{MOST_CELLS:,} values: ask in parts, or use `tickwell training-set build`"
        )


def in_json(versions: Mapping[str, str], table: Any, open_rows: int) -> bytes:
    """The answer in JSON, of the table that was joined."""
    from serving.history.training_set import EVENT_TIME, STATUS, VERSION

    features = {}
    for name, version in versions.items():
        times = None
        if f"{name}{EVENT_TIME}" in table.schema.names:
            column = table.column(f"{name}{EVENT_TIME}").cast("int64")
            times = column.to_pylist()
        values = table.column(name).combine_chunks()
        listed = values.to_pylist() if values.null_count else values.to_numpy().tolist()
        statuses = table.column(f"{name}{STATUS}").combine_chunks()
        names = np.array(statuses.dictionary.to_pylist(), object)
        said = names[statuses.indices.to_numpy()].tolist()
        served = None
        if f"{name}{VERSION}" in table.schema.names:
            served = table.column(f"{name}{VERSION}").to_pylist()
        features[name] = OfflineColumn(version.partition("@")[2], listed, said, times, served)
    return msgspec.json.encode(OfflineAnswer(table.num_rows, features, open_rows))


def in_arrow(table: Any, open_rows: int) -> bytes:
    """The answer in Arrow, whose metadata say how many rows are open."""
    import pyarrow as pa

    table = table.replace_schema_metadata({OPEN: str(open_rows)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written
