"""The metrics of all processes of a server, as any one of them shows them.

Each process writes its own into a page, and the supervisor adds up those of processes that have
ended, so that a counter never goes back. Counters and histograms are summed. A gauge is of one
process, which a label names, as no sum of it means anything in general.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from serving.shared_pages import SharedPages

logger = logging.getLogger(__name__)

SUMMED = frozenset({"counter", "histogram", "summary"})
"""The kinds of metrics that are added up."""

PAST_PAGE = 0
"""The page of the supervisor: what processes that have ended have counted."""


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """A number of a metric."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, array_like=True, frozen=True):
    """A metric: `kind` is its type in Prometheus' text format."""

    name: str
    text: str
    kind: str
    samples: list[Sample]


class Page(msgspec.Struct, array_like=True, frozen=True):
    """What a process writes; `process` is its number, which no other one ever has."""

    process: int
    families: list[Family]


class Past(msgspec.Struct, array_like=True, frozen=True):
    """What the processes that have ended have counted.

    `ended` has of each page the number of the last process whose counts are among `families`, if
    there was room for them.
    """

    ended: dict[int, int]
    families: list[Family]


_pages = msgspec.msgpack.Decoder(Page)
_pasts = msgspec.msgpack.Decoder(Past)


class Siblings:
    """The processes of a server, of which this is one."""

    def __init__(self, pages: SharedPages, page: int, process: int) -> None:
        self._pages = pages
        self._page = page
        self._process = process

    def publish(self, families: list[Family]) -> None:
        """Show the others what this process has counted."""
        self._pages.write(self._page, msgspec.msgpack.encode(Page(self._process, families)))

    def families(self) -> list[Family]:
        """What all processes have counted, by what each has published last."""
        past, alive = self._read()
        return added_up(past.families, alive)

    def alive(self) -> int:
        """How many processes have published something and have not ended."""
        return len(self._read()[1])

    def _read(self) -> tuple[Past, list[tuple[int, list[Family]]]]:
        """The past, and of each process that is alive its page and what it has counted.

        The past is read last: a process that ends meanwhile is in its page or in the past, and
        told by its number where it is in both.
        """
        found = []
        for number in range(PAST_PAGE + 1, self._pages.pages):
            page = _page_of(self._pages, number)
            if page is not None:
                found.append((number, page))
        past = past_of(self._pages)
        alive = [
            (number, page.families)
            for number, page in found
            if page.process > past.ended.get(number, 0)
        ]
        return past, alive


def past_of(pages: SharedPages) -> Past:
    """What processes that have ended have counted."""
    content = pages.read(PAST_PAGE)
    return Past({}, []) if content is None else _pasts.decode(content)


def _page_of(pages: SharedPages, number: int) -> Page | None:
    """What is in a page; None for what cannot be read, which others must not end by."""
    content = pages.read(number)
    if content is None:
        return None
    try:
        return _pages.decode(content)
    except msgspec.DecodeError as error:
        logger.error("what page %d has counted cannot be read: %s", number, error)
        return None


def bury(pages: SharedPages, page: int, process: int) -> None:
    """Add what a process that has ended had in its page to the past; for the supervisor alone.

    Of a page that cannot be read, or whose samples the past has no room for, nothing is added: the
    process must be replaced all the same.
    """
    past, last = past_of(pages), _page_of(pages, page)
    ended, families = {**past.ended, page: process}, past.families
    if last is not None and last.process == process:
        families = _summed([families, last.families])
    try:
        pages.write(PAST_PAGE, msgspec.msgpack.encode(Past(ended, families)))
    except ValueError as error:
        logger.error("what process %d has counted is lost: %s", process, error)
        pages.write(PAST_PAGE, msgspec.msgpack.encode(Past(ended, past.families)))


def count_in_past(pages: SharedPages, family: Family) -> None:
    """Add what the supervisor itself has counted."""
    past = past_of(pages)
    past = Past(past.ended, _summed([past.families, [family]]))
    pages.write(PAST_PAGE, msgspec.msgpack.encode(past))


def added_up(past: list[Family], alive: Sequence[tuple[int, list[Family]]]) -> list[Family]:
    """One metric of each name, of the past and of processes that are alive, by their pages."""
    summed = _summed([past, *(families for _, families in alive)])
    gauges: dict[str, Family] = {}
    for page, families in alive:
        for family in families:
            if family.kind not in SUMMED:
                mine = [_labelled(sample, page) for sample in family.samples]
                known = gauges.setdefault(family.name, _emptied(family))
                known.samples.extend(mine)
    return [*summed, *gauges.values()]


def _summed(each: Iterable[list[Family]]) -> list[Family]:
    """Counters and histograms, with the samples of the same name and labels added up."""
    families: dict[str, Family] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in _of_kinds(each):
        families.setdefault(family.name, family)
        into = sums.setdefault(family.name, {})
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            into[key] = into.get(key, 0.0) + sample.value
    return [
        Family(
            *(name, family.text, family.kind),
            [Sample(key[0], dict(key[1]), value) for key, value in sums[name].items()],
        )
        for name, family in families.items()
    ]


def _of_kinds(each: Iterable[list[Family]]) -> Iterator[Family]:
    return (family for families in each for family in families if family.kind in SUMMED)


def _emptied(family: Family) -> Family:
    return Family(family.name, family.text, family.kind, [])


def _labelled(sample: Sample, page: int) -> Sample:
    return Sample(sample.name, {"process": str(page), **sample.labels}, sample.value)
