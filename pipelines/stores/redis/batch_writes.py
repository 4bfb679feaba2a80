"""A batch as the bytes that Redis keeps (`registry.formats`)."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any

import numpy as np

from pipelines.compute.batch import Batch
from pipelines.compute.state_tails import StateTails
from pipelines.runtime.array_types import Bytes, Int64s
from pipelines.stores.redis.entity_write import EntityWrite
from pipelines.stores.redis.resp import NO_TEXTS, Texts
from registry.formats.origin import ORIGIN
from registry.formats.redis_keys import chunk_field
from registry.formats.row import LAYOUT_VERSION, row_layout
from registry.formats.state import CLOSED, IDENTITY, MOST_FILL, STATE_HEADER
from registry.formats.state import LAYOUT_VERSION as STATE_VERSION


class BatchWrites:
    """What to write of the n entities of a batch, by their indexes, as columns of bytes."""

    def __init__(self, batch: Batch) -> None:
        assert batch.tails is not None
        self._batch = batch
        self._first = 0
        self.tails: StateTails = batch.tails
        self.names = Texts.of(batch.names.data, batch.names.ends)
        self.rows = _matrix(_rows(batch, self.tails.newest))
        """(n, bytes of a row)"""
        self.headers = _matrix(_headers(batch, self.tails))
        """(n, bytes of a header)"""
        self.ticks = _texts(self.tails.words, self.tails.ends)
        """The tail of each."""
        self.chunks = _texts(self.tails.chunk_words, self.tails.chunk_ends)

    def part(self, which: slice) -> BatchWrites:
        """What to write of some entities that follow each other, which are numbered from 0 then."""
        part = copy(self)
        part._first = which.start
        part.tails = self.tails.part(which)
        part.names, part.ticks = self.names.part(which), self.ticks.part(which)
        part.rows, part.headers = self.rows[which], self.headers[which]
        chunks = np.searchsorted(self.tails.chunk_of, [which.start, which.stop])
        part.chunks = self.chunks.part(slice(*chunks.tolist()))
        return part

    def some_names(self, which: Int64s) -> Texts:
        """The names of some entities, by their indexes in the batch."""
        if not len(which):
            return NO_TEXTS
        names = self._batch.names
        return Texts.of(names.data, names.ends).only(which)

    def identities(self, which: Int64s) -> Texts:
        """By what the states are recognised that some entities must have; "" for no state.

        `which` are indexes in the batch.
        """
        if not len(which):
            return NO_TEXTS
        expected = self._batch.expected.only(which.astype(np.int32))
        packed = np.empty(len(which), IDENTITY.dtype)
        for name in ORIGIN.dtype.names or ():
            packed[name] = expected.packed[name]
        packed["count"] = expected.accepted
        ends = np.zeros(len(which) + 1, np.int64)
        np.cumsum(np.where(expected.known, IDENTITY.size, 0), out=ends[1:])
        return Texts.of(packed[expected.known].tobytes(), ends)

    def memberships(self) -> Iterator[tuple[str, bytes]]:
        """The entities whose being a member may have changed: new ones, closed and opened ones.

        Each with the packed event time at which it was closed, b"" if it is open.
        """
        batch = self._batch
        if len(batch.source.key) == 1:
            return
        some = slice(self._first, self._first + len(self.names))
        is_new = ~batch.expected.at_home(batch.run.topic_id, batch.run.partition)[some]
        closed = (batch.fill[some] == CLOSED) | (batch.fill_before[some] == CLOSED)
        for i in np.flatnonzero(is_new | closed).tolist():
            yield batch.names[self._first + i], self._closed(i)

    def _closed(self, index: int) -> bytes:
        """The packed event time at which an entity was closed, b"" if it is open."""
        if self._batch.fill[self._first + index] != CLOSED:
            return b""
        begin = STATE_HEADER.offset("event_time")
        return self.headers[index, begin : begin + 8].tobytes()

    def writes(self) -> list[EntityWrite]:
        """The same of each entity alone."""
        names = list(self._batch.names)
        everyone = np.arange(len(names))
        expected, tails = self.identities(everyone), self.tails
        chunks: list[list[tuple[str, bytes]]] = [[] for _ in names]
        for c, of in enumerate(tails.chunk_of.tolist()):
            field = chunk_field(names[of], int(tails.chunk_block[c]))
            chunks[of].append((field, _text(self.chunks, c)))
        dropped: list[list[str]] = [[] for _ in names]
        for of, block in zip(tails.dropped_of.tolist(), tails.dropped_block.tolist(), strict=True):
            dropped[of].append(chunk_field(names[of], block))
        return [
            EntityWrite(
                entity=name,
                expected=_text(expected, i),
                row=self.rows[i].tobytes(),
                state=self.headers[i].tobytes() + _text(self.ticks, i),
                chunks=chunks[i],
                dropped=dropped[i],
                closed=self._closed(i),
            )
            for i, name in enumerate(names)
        ]


def _headers(batch: Batch, tails: StateTails) -> Any:
    """The state header of each entity."""
    newest = tails.newest
    headers = np.zeros(len(newest), STATE_HEADER.dtype)
    _put_origins(headers, batch, newest)
    headers["count"] = tails.accepted
    headers["sequence"] = batch.sequence[newest]
    headers["event_time"] = batch.event_time[newest]
    headers["fill"] = np.minimum(batch.fill, MOST_FILL)
    headers["first_block"] = tails.first_block
    headers["fields"] = len(batch.source.fields)
    headers["layout_version"] = STATE_VERSION
    return headers


def _rows(batch: Batch, newest: Int64s) -> Any:
    """The row of each entity as `formats.row.pack` makes it; `newest` are their indexes."""
    rows = np.empty(len(newest), row_layout(len(batch.schema.features)).dtype)
    rows["layout_version"] = LAYOUT_VERSION
    rows["schema_id"] = batch.schema.id
    rows["event_time"] = batch.event_time[newest]
    rows["sequence"] = batch.sequence[newest]
    rows["known_at"] = batch.known_at[newest]
    _put_origins(rows, batch, newest)
    rows["status"] = batch.status[newest]
    rows["values"] = batch.features[newest]
    return rows


def _put_origins(column: Any, batch: Batch, newest: Any) -> None:
    column["topic_id"] = np.void(batch.run.topic_id)
    column["partition"] = batch.run.partition
    column["offset"] = batch.offset[newest]
    column["index"] = batch.index[newest]


def _matrix(column: Any) -> Bytes:
    """A column of structures as (n, bytes of one)."""
    matrix: Bytes = column.view(np.uint8).reshape(len(column), column.dtype.itemsize)
    return matrix


def _texts(words: Int64s, ends: Int64s) -> Texts:
    return Texts.of(words.view(np.uint8), ends * 8)


def _text(texts: Texts, index: int) -> bytes:
    return texts.data[texts.ends[index] : texts.ends[index + 1]].tobytes()
