"""A run's messages to columns of ticks.

The fast way takes ticks that pass every check, a compiled decoder for the source's fields and
checks on whole columns. Any other tick goes to `pipelines.judge`, one at a time, which is the
definition; so what a tick comes to never depends on the others of its run.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, cast

import msgspec
import numpy as np

from pipelines.judge import (
    MAX_ARRAY_TICKS,
    MAX_DEPTH,
    MAX_MESSAGE_BYTES,
    OPERATIONS,
    Rejected,
    Tick,
    check_depth,
    is_key,
    judge,
    split,
)
from pipelines.kernel import RESET
from pipelines.runs import NO_SEQ, Rejection, Run, Ticks
from pipelines.times import LATEST, NANOSECONDS, parse_rfc_3339
from registry.definitions import Source
from registry.keys import entity_id

KNOWN_KEYS = 1_000_000
"""How many message keys are remembered as well-formed before the memory starts anew."""

NO_TIMESTAMP = -1
"""Kafka's, for a record that has none."""

_BAD = object()


class Decoder:
    """Decodes the runs of one source. It remembers nothing that a result depends on."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._decode = msgspec.json.Decoder(_struct(source)).decode
        self._decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
        self._keys = [attrgetter(name) for name in source.key]
        self._fields = [attrgetter(name) for name in source.field_names]
        self._factor = NANOSECONDS[source.ts_unit]
        self._encoded: dict[str, bytes] = {}

    def decode(self, run: Run) -> Ticks:
        """The ticks of a run, in order, and what decoding rejects of it."""
        found = _Found(run)
        structs = self._structs(run, found)
        columns = self._columns(structs, found)
        return self._ticks(found, *columns)

    def _structs(self, run: Run, found: _Found) -> list[Any]:
        values = run.values
        try:
            structs = list(map(self._decode, values))  # type: ignore[arg-type]
            joined = b"".join(values)  # type: ignore[arg-type]
        except (msgspec.DecodeError, TypeError, RecursionError, UnicodeDecodeError):
            return self._one_by_one(run, found)
        brackets = joined.count(b"{") + joined.count(b"[")
        if brackets > len(values) + MAX_DEPTH - 1:  # one of them may be nested deeply
            return self._one_by_one(run, found)
        if not joined.isascii() or max(map(len, values), default=0) > MAX_MESSAGE_BYTES:  # type: ignore[arg-type]
            return self._one_by_one(run, found)
        found.simple(values)  # type: ignore[arg-type]
        return structs

    def _one_by_one(self, run: Run, found: _Found) -> list[Any]:
        structs: list[Any] = []
        for record, message in enumerate(run.values):
            try:
                for index, raw in self._split(message):
                    found.add(record, index, raw)
                    structs.append(self._struct_or_bad(raw))
            except Rejected as rejected:
                found.reject(record, 0, rejected, message)
        return structs

    def _split(self, message: bytes | None) -> Sequence[tuple[int, bytes]]:
        """As `pipelines.judge.split`, with a fast way for well-formed arrays."""
        if message and len(message) <= MAX_MESSAGE_BYTES:
            check_depth(message)
        if message and len(message) <= MAX_MESSAGE_BYTES and message[:1] == b"[":
            try:
                message.decode("utf-8")
                elements = self._decode_array(message)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if 0 < len(elements) <= MAX_ARRAY_TICKS:
                    return [(index, bytes(raw)) for index, raw in enumerate(elements)]
        elif message and len(message) <= MAX_MESSAGE_BYTES and message[:1] == b"{":
            return [(0, message)]
        return list(split(message))

    def _struct_or_bad(self, raw: bytes) -> Any:
        try:
            struct = self._decode(raw)
            raw.decode("utf-8")  # the decoder does not look into fields that it ignores
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _BAD
        return struct

    def _columns(
        self, structs: list[Any], found: _Found
    ) -> tuple[list[tuple[str, ...]], Any, Any, Any, Any]:
        """Key values, tick time, seq, op and fields; a tick that fails a check is judged anew."""
        n = len(structs)
        tick_time = np.zeros(n, np.int64)
        seq = np.full(n, NO_SEQ, np.int64)
        op = np.zeros(n, np.uint8)
        fields = np.zeros((n, len(self._fields)))
        good = np.fromiter((struct is not _BAD for struct in structs), bool, n)
        at = np.flatnonzero(good)
        decoded = structs if len(at) == n else [structs[i] for i in at]
        keys: list[Any] = [()] * n
        if decoded:
            times, in_range = self._times([struct.ts for struct in decoded])
            seqs, fits = _seqs([struct.seq for struct in decoded])
            ops = np.fromiter(
                (OPERATIONS.get(struct.op, 255) for struct in decoded), np.uint8, len(decoded)
            )
            values = np.empty((len(decoded), len(self._fields)))
            for place, getter in enumerate(self._fields):
                values[:, place] = _doubles(map(getter, decoded), len(decoded))
            names = list(zip(*(map(getter, decoded) for getter in self._keys), strict=True))
            latest = found.known_at()[at] + self.source.skew_ns
            fine = in_range & fits & (ops != 255) & (times <= latest)
            fine &= self._keys_match(names, found, at)
            fine &= self._fields_fit(values, ops)
            values[ops == RESET] = math.nan
            tick_time[at], seq[at], op[at], fields[at] = times, seqs, ops, values
            good[at] = fine
            for i, name in zip(at.tolist(), names, strict=True):
                keys[i] = name
        for i in np.flatnonzero(~good).tolist():
            tick = self._judge(i, found)
            if tick is not None:
                keys[i], good[i] = tick.key, True
                tick_time[i], seq[i], op[i] = tick.tick_time, tick.seq, tick.op
                fields[i] = tick.fields
        if good.all():
            return keys, tick_time, seq, op, fields
        found.keep(good)
        kept = [key for key, is_good in zip(keys, good.tolist(), strict=True) if is_good]
        return kept, tick_time[good], seq[good], op[good], np.ascontiguousarray(fields[good])

    def _judge(self, i: int, found: _Found) -> Tick | None:
        record, index, raw = found.tick(i)
        try:
            return judge(
                raw, self.source, found.run.keys[record], int(found.record_known_at[record])
            )
        except Rejected as rejected:
            found.reject(record, index, rejected, raw)
            return None

    def _times(self, given: list[int | str]) -> tuple[Any, Any]:
        """Nanoseconds UTC, and which of them are in range."""
        try:
            # not np.array, which would take "17" for 17
            raw = np.frombuffer(array("q", cast(list[int], given)), np.int64)
        except (OverflowError, TypeError):
            raw = np.fromiter(map(self._clamped, given), np.int64, len(given))
            return raw, (raw >= 0) & (raw < LATEST)
        in_range = (raw >= 0) & (raw < LATEST // self._factor)
        return np.where(in_range, raw, 0) * self._factor, in_range

    def _clamped(self, ts: int | str) -> int:
        if isinstance(ts, str):
            parsed = parse_rfc_3339(ts)
            return -1 if parsed is None else max(-1, min(parsed, LATEST))
        return max(-1, min(ts * self._factor, LATEST))

    def _keys_match(self, names: list[tuple[str, ...]], found: _Found, at: Any) -> Any:
        message_keys = found.message_keys(at)
        encoded = self._encoded
        if len(encoded) > KNOWN_KEYS:
            encoded.clear()
        for name in {part for key in names for part in key} - encoded.keys():
            if is_key(name):
                encoded[name] = name.encode()
        well_formed = encoded.keys()
        if len(self._keys) == 1:
            return np.fromiter(
                (
                    encoded.get(name[0], _BAD) == key
                    for name, key in zip(names, message_keys, strict=True)
                ),
                bool,
                len(names),
            )
        return np.fromiter(
            (
                encoded.get(name[0], _BAD) == key and all(part in well_formed for part in name)
                for name, key in zip(names, message_keys, strict=True)
            ),
            bool,
            len(names),
        )

    def _fields_fit(self, values: Any, ops: Any) -> Any:
        fit = np.ones(len(values), bool)
        for place, field in enumerate(self.source.fields):
            column = values[:, place]
            if field.required:
                fit &= np.isfinite(column)
            elif field.default is not None:
                column[np.isnan(column)] = field.default
            if self.source.positive:
                fit &= ~(column <= 0)
        return fit | (ops == RESET)

    def _ticks(
        self,
        found: _Found,
        keys: list[tuple[str, ...]],
        tick_time: Any,
        seq: Any,
        op: Any,
        fields: Any,
    ) -> Ticks:
        run = found.run
        record = np.array(found.records, np.int64)
        return Ticks(
            run=run,
            source=self.source,
            entities=[key[0] for key in keys]
            if len(self._keys) == 1
            else [entity_id(key) for key in keys],
            record=record,
            offset=run.offsets[record],
            index=np.array(found.indexes, np.int32),
            tick_time=tick_time,
            seq=seq,
            op=op,
            fields=fields,
            known_at=found.known_at(),
            rejected=found.rejected,
            raw=found.raws,
        )


class _Found:
    """The ticks found in a run, by their place in it, and those rejected on the way."""

    def __init__(self, run: Run) -> None:
        self.run = run
        # bounded, for where producers set it anything can come, and nanoseconds have 64 bits
        self.record_known_at = np.clip(run.timestamps, NO_TIMESTAMP, LATEST // 10**6) * 10**6
        self.records: Sequence[int] = []
        self.indexes: Sequence[int] = []
        self.raws: Sequence[bytes] = []
        self.rejected: list[Rejection] = []

    def simple(self, values: Sequence[bytes]) -> None:
        """Every message is one tick."""
        self.records = range(len(values))
        self.indexes = [0] * len(values)
        self.raws = values

    def add(self, record: int, index: int, raw: bytes) -> None:
        self.records.append(record)  # type: ignore[attr-defined]
        self.indexes.append(index)  # type: ignore[attr-defined]
        self.raws.append(raw)  # type: ignore[attr-defined]

    def tick(self, i: int) -> tuple[int, int, bytes]:
        return self.records[i], self.indexes[i], self.raws[i]

    def known_at(self) -> Any:
        return self.record_known_at[np.array(self.records, np.int64)]

    def message_keys(self, at: Any) -> list[bytes | None]:
        keys = self.run.keys
        if self.records == range(len(keys)) and len(at) == len(keys):
            return list(keys)
        return [keys[self.records[i]] for i in at.tolist()]

    def keep(self, good: Any) -> None:
        places = np.flatnonzero(good).tolist()
        self.records = [self.records[i] for i in places]
        self.indexes = [self.indexes[i] for i in places]
        self.raws = [self.raws[i] for i in places]

    def reject(self, record: int, index: int, why: Rejected, raw: bytes | None) -> None:
        run = self.run
        self.rejected.append(
            Rejection(
                offset=int(run.offsets[record]),
                index=index,
                reason=why.reason,
                detail=why.detail,
                key=run.keys[record],
                value=raw,
                known_at=int(self.record_known_at[record]),
            )
        )


def _struct(source: Source) -> type[msgspec.Struct]:
    """What the compiled decoder fills. NaN, which JSON cannot hold, stands for an absent number."""
    fields: list[Any] = [(name, str) for name in source.key]
    fields.append(("ts", int | str))
    fields += [
        (field.name, float if field.required else float | None, math.nan) for field in source.fields
    ]
    fields += [("seq", int | None, None), ("op", str, "trade")]
    return msgspec.defstruct("Tick", fields, kw_only=True, gc=False)


def _seqs(given: list[int | None]) -> tuple[Any, Any]:
    """Sequence numbers, and which of them fit into 63 bits and a sign."""
    fits = np.ones(len(given), bool)
    try:
        seqs = np.array(given, np.int64)
        return seqs, seqs != NO_SEQ
    except (TypeError, OverflowError):
        pass
    seqs = np.full(len(given), NO_SEQ, np.int64)
    for i, seq in enumerate(given):
        if seq is None:
            continue
        if abs(seq) < -NO_SEQ:
            seqs[i] = seq
        else:
            fits[i] = False
    return seqs, fits


def _doubles(values: Any, n: int) -> Any:
    """float64 (n,), NaN for None."""
    return np.array([math.nan if value is None else value for value in values], np.float64)
