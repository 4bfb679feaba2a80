"""The parts of a request with several kinds of entities: each kind is asked its own question."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from serving.stores.row_store import TieredRows

if TYPE_CHECKING:  # it imports this
    from serving.api.asked import AskedEntity, Question, Questions

NAMES = attrgetter("names")


class Part(NamedTuple):
    """The entities of a request that are of one kind, and the question that is asked of them."""

    question: Question
    entities: Sequence[AskedEntity]
    which: Sequence[int]
    """Which of the entities of the request they are."""
    rows: Sequence[TieredRows] = ()
    """Their rows in each source of the question."""

    def wanted(self) -> list[tuple[str, Sequence[bytes]]]:
        """Each source of the question, and the names of the rows in it."""
        names = zip(*map(NAMES, self.entities), strict=True)
        return [(s.name, of) for s, of in zip(self.question.sources, names, strict=True)]


def parts_of(questions: Questions, entities: Sequence[AskedEntity]) -> list[Part]:
    """The parts of a request, one for each kind of entity."""
    if len(questions.each) == 1:
        return [Part(questions.each[0], entities, range(len(entities)))]
    parts: list[Part] = []
    for kind, question in enumerate(questions.each):
        which = [index for index, entity in enumerate(entities) if entity.kind == kind]
        parts.append(Part(question, [entities[index] for index in which], which))
    return parts


def with_rows(parts: Sequence[Part], rows: Sequence[TieredRows]) -> list[Part]:
    """The parts with their rows, which are those of the sources of one after the other."""
    found, begin = [], 0
    for part in parts:
        end = begin + len(part.question.sources)
        found.append(part._replace(rows=rows[begin:end]))
        begin = end
    return found
