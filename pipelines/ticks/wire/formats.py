"""Messages of a schema registry's formats as JSON, before they are decoded.

    message ─► frame ─► schema ─► value ─► JSON ─► the decoders, as for any other source
                          │ from the registry, once

So both decoders, `map`, `where` and `items` are the same for every format. What a message is in
JSON follows from its bytes and its schema; a schema never changes under its id.

Avro and Protobuf need the extra `avro` and a registry; they are imported when a source needs them.
The format `json-schema` needs neither: behind the frame is the JSON text itself. It is not compared
with its schema, which Confluent's Java consumer does not do either unless asked to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import numpy as np

from pipelines.errors import FormatUnreadable, SchemaRegistryUnavailable
from pipelines.kafka.run import Run
from pipelines.runtime.array_types import Int64s
from pipelines.ticks import rejection_reasons as reasons
from pipelines.ticks.message_elements import Rejected
from pipelines.ticks.message_limits import MAX_MESSAGE_BYTES
from pipelines.ticks.wire.frames import SCHEMA_HEADER, Frame, SchemaName, frame_of
from pipelines.ticks.wire.schema_registry import (
    SERIALIZED,
    RegistryConnection,
    Schema,
    SchemaRegistry,
    SchemaTooLarge,
    SchemaUnknown,
)
from pipelines.ticks.wire.values import TooLong, Unreadable, json_of
from pipelines.ticks.wire.wanted_values import Wanted
from registry.definitions import Source

EXTRA = "pip install 'tickwell[avro]'"
MOST_SCHEMAS = 256
"""Schemas whose readers are kept from one run to the next."""

MOST_UNKNOWN = 20
"""Schemas that the registry has not and that are asked for in one attempt."""

MOST_JSON_BYTES = 32 << 20
"""Bytes of JSON that a part of a run has, as many as a run of JSON may have."""

KINDS = {"avro": "AVRO", "protobuf": "PROTOBUF"}
"""What a registry calls the schemas of a format."""

Read = Callable[[bytes, tuple[int, ...]], Any]
"""From the bytes of a value, and which type of its schema it is, to what it is in JSON; raises
anything for bytes that are wrong."""

Readers = tuple[Callable[[Schema, Schema | None, Wanted], Read], str | None]
"""How a reader of a format is made, and the form in which the registry is asked for its schemas."""


@dataclass(frozen=True, slots=True)
class JsonRun:
    """The records `original`, and as `run` the same with values that are JSON.

    `failed` says, by record, which have none, and why.
    """

    original: Run
    run: Run
    failed: Mapping[int, Rejected]


class WireFormat:
    """Reads the messages of one source.

    It keeps the schemas that it has met. A part of a run has at most `most_bytes` of JSON, or one
    message. Raises `FormatUnreadable` where a package or the registry is missing that the source's
    format needs.
    """

    def __init__(
        self, source: Source, registry: SchemaRegistry | None, most_bytes: int = MOST_JSON_BYTES
    ) -> None:
        self._source = source
        self._most_bytes = most_bytes
        self._known: dict[SchemaName, Read | str] = {}
        """The reader of a schema, or why it has none."""
        self._rejected: set[SchemaName] = {
            name if isinstance(name, int) else UUID(name) for name in source.reject_schema_ids
        }
        self._wanted = Wanted.of(source)
        self._read_in: Schema | None = None
        self._kind = KINDS.get(source.format)
        if self._kind is None:
            return
        check_format(source, registry)
        assert registry is not None, "checked above"
        self._registry = registry
        self._make, self._form = _readers(source.format)

    def as_json(self, run: Run) -> Iterator[JsonRun]:
        """A run in parts that meet, each with its values as JSON behind the run's own bytes.

        A tombstone stays one. Raises `SchemaRegistryUnavailable` while a schema cannot be had.
        """
        failed: dict[int, Rejected] = {}
        frames: dict[int, Frame] = {}
        for record, start in enumerate(run.values[:, 0].tolist()):
            if start < 0:
                continue
            try:
                frames[record] = self._frame(run, record)
            except Rejected as rejected:
                failed[record] = rejected
        if self._kind is not None:
            self._meet(run, frames)
        texts, values, begin = bytearray(), run.values.copy(), 0
        for record, frame in frames.items():
            if self._kind is None:  # it is JSON where it stands
                values[record, 0] += frame.begin
                continue
            try:
                text = self._text(run, record, frame)
            except Rejected as rejected:
                failed[record] = rejected
                continue
            if texts and len(texts) + len(text) > self._most_bytes:
                yield _part(run, texts, values, failed, range(begin, record))
                texts, begin = bytearray(), record
            start = len(run.data) + len(texts)
            texts += text
            values[record] = start, start + len(text)
        yield _part(run, texts, values, failed, range(begin, len(run)))

    def _frame(self, run: Run, record: int) -> Frame:
        start, end = run.values[record].tolist()
        if end - start > MAX_MESSAGE_BYTES:
            raise Rejected(
                reasons.TOO_LARGE, f"{end - start} bytes; at most {MAX_MESSAGE_BYTES} are taken"
            )
        header = run.headers_of(record).get(SCHEMA_HEADER)
        has_indexes = self._source.format == "protobuf"
        # the longest frame has 17 bytes and 33 varints of 10
        begin = run.data[start : min(end, start + 512)].tobytes()
        frame = frame_of(begin, header, has_indexes=has_indexes)
        if frame.schema in self._rejected:
            raise Rejected(
                reasons.MALFORMED,
                f"its schema {frame.schema} is among the source's `reject_schema_ids`",
            )
        return frame

    def _text(self, run: Run, record: int, frame: Frame) -> bytes:
        start, end = run.values[record].tolist()
        encoded = run.data[start + frame.begin : end].tobytes()
        read = self._known[frame.schema]
        if isinstance(read, str):
            raise Rejected(reasons.MALFORMED, read)
        try:
            return json_of(read(encoded, frame.indexes), MAX_MESSAGE_BYTES)
        except MemoryError:
            raise
        except TooLong:
            raise Rejected(reasons.TOO_LARGE, f"over {MAX_MESSAGE_BYTES} bytes as JSON") from None
        except Exception as error:  # of any kind: whoever writes schemas chooses the bytes as well
            why = error if isinstance(error, Unreadable) else Unreadable.of(error)
            raise Rejected(
                reasons.MALFORMED, f"schema {frame.schema}: the value does not decode: {why}"
            ) from None

    def _meet(self, run: Run, frames: Mapping[int, Frame]) -> None:
        """Make the readers of schemas that were not met before.

        Raises `SchemaRegistryUnavailable`, also where the registry has no such schema: it says
        nothing of a message, since it may have it tomorrow, when a replay asks.
        """
        names: dict[SchemaName, int] = {}
        for record, frame in frames.items():
            names.setdefault(frame.schema, record)
        if len(self._known) > MOST_SCHEMAS:
            self._known = {name: read for name, read in self._known.items() if name in names}
        unknown: list[SchemaName] = []
        for name in names.keys() - self._known.keys():
            try:
                self._known[name] = self._reader(name)
            except (SchemaTooLarge, Unreadable) as error:
                self._known[name] = f"schema {name}: {error}"
            except SchemaUnknown:
                unknown.append(name)
                if len(unknown) == MOST_UNKNOWN:
                    break
        if unknown:
            unknown.sort(key=names.__getitem__)
            first = int(run.offsets[names[unknown[0]]])
            place = f"{run.topic}[{run.partition}] offset {first}"
            raise SchemaRegistryUnavailable(self._registry.url, self._way_out(unknown, place))

    def _way_out(self, unknown: Sequence[SchemaName], place: str) -> str:
        """What to do about schemas that the registry has not; `place` is the first message's."""
        shown = [name if isinstance(name, int) else str(name) for name in unknown]
        rejected = json.dumps([*self._source.reject_schema_ids, *shown])
        return (
            f"it has no schema {', '.join(map(str, shown))} ({place}); messages wait until it has, "
            f"or stop the workers, set `reject_schema_ids = {rejected}` in the source "
            f"{self._source.name} and run `tickwell migrate --from-now`"
        )

    def _reader(self, name: SchemaName) -> Read:
        """Raises `SchemaTooLarge`, `Unreadable`, `SchemaUnknown`, `SchemaRegistryUnavailable`."""
        written_in = self._schema(name)
        if self._source.schema_id is not None and self._read_in is None:
            self._read_in = self._declared(self._source.schema_id)
        return self._make(written_in, self._read_in, self._wanted)

    def _declared(self, name: SchemaName) -> Schema:
        """The schema that the source names. No message is to blame for it, so it is waited for."""
        try:
            schema = self._schema(name)
            self._make(schema, schema, self._wanted)
        except (SchemaTooLarge, Unreadable, SchemaUnknown) as error:
            raise SchemaRegistryUnavailable(
                self._registry.url,
                f"source {self._source.name} is read in schema {name}, by its `schema_id`: {error}",
            ) from None
        return schema

    def _schema(self, name: SchemaName) -> Schema:
        schema = self._registry.schema(name, self._form)
        if schema.kind != self._kind:
            raise Unreadable(
                f"it is of type {schema.kind}, and the source's format is {self._source.format}"
            )
        return schema


def _part(
    run: Run, texts: bytearray, values: Int64s, failed: Mapping[int, Rejected], records: range
) -> JsonRun:
    """Some records of a run, whose values are in its own bytes or in `texts` behind them."""
    original = run
    if records.stop < len(run):
        original = original.before(int(run.offsets[records.stop]))
    if records.start > 0:
        original = original.since(int(run.offsets[records.start]))
    of_part = {record - records.start: failed[record] for record in records if record in failed}
    spans = values[records.start : records.stop].copy()
    spans[list(of_part)] = -1
    data = np.concatenate([run.data, np.frombuffer(texts, np.uint8)])
    return JsonRun(original, replace(original, data=data, values=spans), of_part)


def registry_of(
    sources: Iterable[Source], connection: RegistryConnection | None
) -> SchemaRegistry | None:
    """The registry that the format of any source needs, None where none does or none is named.

    Raises `FormatUnreadable` where packages are missing.
    """
    framed = [source for source in sources if source.format in KINDS]
    if not framed or connection is None:
        return None
    for source in framed:
        check_format(source, connection)
    return SchemaRegistry.of(connection)


def check_format(source: Source, registry: SchemaRegistry | RegistryConnection | None) -> None:
    """Raises `FormatUnreadable` where packages, or a registry, are missing that a source needs."""
    if source.format not in KINDS:
        return
    try:
        import confluent_kafka.schema_registry  # noqa: F401

        _readers(source.format)
    except ImportError as error:
        raise FormatUnreadable(
            f"source {source.name} has the format {source.format}, which needs packages that are "
            f"not installed: {EXTRA} ({error})"
        ) from None
    if registry is None:
        raise FormatUnreadable(
            f"source {source.name} has the format {source.format}: set TICKWELL_SCHEMA_REGISTRY to "
            "the URL of the schema registry that has its schemas"
        )


def _readers(form: str) -> Readers:
    if form == "protobuf":
        from pipelines.ticks.wire import protobuf_values

        return protobuf_values.value_reader, SERIALIZED

    from pipelines.ticks.wire import avro_values

    return avro_values.value_reader, None
