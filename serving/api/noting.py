"""Hands the log of served values what one request in many was answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serving.api.asked import Asked
from serving.api.parts import Part
from serving.features.reader import Evaluated
from serving.features.served_values import (
    PreparedPart,
    Read,
    ReadByNames,
    ReadByReader,
    Told,
    record_of,
)
from serving.features.values import Moment
from serving.served_log import ServedLog


class Noting:
    """Notes answers in a log. Nothing is raised, as the answers are given all the same."""

    def __init__(self, log: ServedLog) -> None:
        self._log = log
        self.is_due = log.is_due
        """Whether the answer of now is to be noted; to be asked once of each."""

    def prepared(
        self,
        told: Iterator[Told],
        asked: Asked,
        parts: Sequence[Part],
        moment: Moment,
        request_id: str | None,
    ) -> None:
        """Note what was told of prepared questions, given their rows."""
        read = ReadByNames(
            asked.names,
            [
                PreparedPart(
                    part.question.prepared, [e.text for e in part.entities], part.which, part.rows
                )
                for part in parts
            ],
        )
        self._note(told, read, moment, request_id)

    def evaluated(self, told: Iterator[Told], evaluated: Evaluated, request_id: str | None) -> None:
        """Note what was told of what the reader has evaluated."""
        self._note(told, ReadByReader(evaluated), evaluated.moment, request_id)

    def _note(
        self, told: Iterator[Told], read: Read, moment: Moment, request_id: str | None
    ) -> None:
        self._log.note(lambda: record_of(told, read, moment, request_id))
