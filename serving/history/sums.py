"""Sums over entities at moments, as a portfolio's exposure: of those entities that were open then.

    groups of rows ──► members ──► ticks of each member at each row's moment ──► terms ──► sums

All is done by columns: a row with twenty positions is twenty numbers, and no object of Python. The
members of some rows are read at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.definitions import FeatureVersion
from registry.formats.entity_name import SEPARATOR, key_values
from registry.language.term_columns import Sums, Terms, add_up, compile_terms
from registry.resources import sql
from serving.features.columns import NO_TIME
from serving.history.found_ticks import Asked
from serving.history.past_columns import Flags, Int64s, PastColumn, judged, past_column
from serving.history.sources import OfRows, Sources

MEMBERS = sql(__package__, "members")
PAST_SEPARATOR = chr(ord(SEPARATOR) + 1)
"""What names begin with that come after all of a group, in place of the separator."""

MEMBER_ROWS = 50_000
"""Members of sums, each at one moment, that are read at a time: 20 MB."""

NEVER_CLOSED = np.iinfo(np.int64).min


class Members(NamedTuple):
    """The entities that ever were in some groups: those of a group stand together, by name."""

    names: Sequence[str]
    begins: Int64s
    """(groups + 1,) The first member of each group."""

    @property
    def sizes(self) -> Int64s:
        """(groups,) The number of members of each."""
        return np.diff(self.begins)


def summed(
    sources: Sources, version: FeatureVersion, parts: Mapping[str, FeatureVersion], rows: OfRows
) -> PastColumn:
    """A sum over entities, of rows; `parts` are the features that it reads, by their names."""
    assert version.over is not None
    of_group = [field for field in sources.key_of(version.over) if field in version.entity]
    groups, group = rows.rows.entities(of_group)
    members = members_of(sources, version.over, groups)
    formula = _Formula(sources, version, parts, members)
    pieces = [
        formula.sums(group[piece], rows.part(piece))
        for piece in _cut(members.sizes[group], MEMBER_ROWS)
    ]
    whole = Sums(*map(np.concatenate, zip(*(sums for sums, _ in pieces), strict=True)))
    lacks = np.concatenate([lacks for _, lacks in pieces])
    ranks = judged(whole.ranks, whole.times, rows.moments, version)
    return PastColumn(version, whole.values, ranks, whole.times, lacks)


def members_of(sources: Sources, over: str, groups: Sequence[str]) -> Members:
    """The entities that ever were in each group, in the order of their names."""
    wanted = {
        "source": over,
        "numbers": list(range(len(groups))),
        "firsts": [group + SEPARATOR for group in groups],
        "ends": [group + PAST_SEPARATOR for group in groups],
    }
    found = sources.snapshot.rows(MEMBERS, wanted)
    sizes = np.bincount(np.array([number for number, _ in found], np.int64), minlength=len(groups))
    begins = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    return Members([entity for _, entity in found], begins.astype(np.int64))


class _Formula:
    """A sum's formula over the members of its groups."""

    def __init__(
        self,
        sources: Sources,
        version: FeatureVersion,
        parts: Mapping[str, FeatureVersion],
        members: Members,
    ) -> None:
        assert version.over is not None
        self._sources = sources
        self._over = version.over
        self._parts = parts
        self._members = members
        self._terms = compile_terms(version.expression, version.ref)
        self._named = {
            source: self._names_in(source)
            for source in {self._over, *(str(part.source) for part in parts.values())}
        }

    def _names_in(self, source: str) -> tuple[Sequence[str], NDArray[np.int32]]:
        """The entities of a source that members have there, each once, and which of them each."""
        own = self._sources.key_of(self._over)
        wanted = [own.index(field) for field in self._sources.key_of(source)]
        numbers: dict[str, int] = {}
        of: list[int] = []
        for member in self._members.names:
            values = key_values(member)
            name = SEPARATOR.join([values[index] for index in wanted])
            of.append(numbers.setdefault(name, len(numbers)))
        return list(numbers), np.array(of, np.int32)

    def sums(self, group: NDArray[np.int32], rows: OfRows) -> tuple[Sums, Flags]:
        """The sums of rows, each of one group, and which lack a value that was never computed."""
        n, sizes = len(group), self._members.sizes[group]
        row = np.repeat(np.arange(n), sizes)
        ends = np.cumsum(sizes)
        member = np.arange(len(row)) - np.repeat(ends - sizes - self._members.begins[group], sizes)
        moments, known = rows.moments[row], rows.known[row]
        ticks = {}
        for source, (names, of) in self._named.items():
            refs = [part.ref for part in self._parts.values() if part.source == source]
            asked = Asked(names, of[member], moments, known, rows.repaired)
            ticks[source] = self._sources.ticks(source, asked, refs)
        times, closed = ticks[self._over].event_times, ticks[self._over].closed
        is_open = (times != NO_TIME) & ~closed
        last_close = np.full(n, NEVER_CLOSED)
        np.maximum.at(last_close, row[closed], times[closed])
        parts, lacking = {}, np.zeros(len(row), np.bool_)
        for name, part in self._parts.items():
            column = past_column(part, ticks[str(part.source)], moments)
            lacking |= column.lacks
            own = column.values[is_open], column.ranks[is_open], column.event_times[is_open]
            parts[name] = Terms.of_feature(*own)
        lacks = np.bincount(row[is_open & lacking], minlength=n) > 0
        return add_up(self._terms(parts), row[is_open], n, last_close), lacks


def _cut(sizes: Int64s, most: int) -> Iterator[slice]:
    """Rows that together have at most so many members; a row of more stands alone."""
    begin, sum_of = 0, 0
    for number, size in enumerate(sizes.tolist()):
        if number > begin and sum_of + size > most:
            yield slice(begin, number)
            begin, sum_of = number, 0
        sum_of += size
    yield slice(begin, len(sizes))
