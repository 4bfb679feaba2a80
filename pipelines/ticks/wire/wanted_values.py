"""What of a message its source reads: the values that its paths lead to, and no others.

In the formats of a schema registry a few bytes may stand for thousands of values, as a record's
fields that are not set. Only those that are read are made JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from registry.definitions import Source
from registry.paths import Part, parse_path


@dataclass(slots=True)
class Wanted:
    """The fields that are read of an object; of a value at the end of a path there are none.

    With `is_many` it may be an array of such objects.
    """

    fields: dict[str, Wanted] = field(default_factory=dict)
    is_many: bool = False

    @classmethod
    def of(cls, source: Source) -> Wanted:
        """What a source reads of a message."""
        where = f"source {source.name}"
        conditions = (parse_path(condition.path, where) for condition in source.where)
        paths = [*source.paths.values(), *conditions]
        around = (path.names for path in paths if path.part is Part.AROUND)
        tick = (path.names for path in paths if path.part is Part.TICK)
        if source.items is None:
            message = ticks = cls()
        else:
            message = cls()
            message._add(around)
            ticks = message._at(parse_path(source.items, where).names)
        ticks.is_many = True
        ticks._add(tick)
        return message

    def only(self, value: Any) -> Any:
        """The part of a value that is read; an object or array that is none has nothing in it."""
        if isinstance(value, dict):
            return {
                name: wanted.only(value[name])
                for name, wanted in self.fields.items()
                if name in value
            }
        if isinstance(value, list):
            return [self.only(each) for each in value] if self.is_many else []
        return value

    def _add(self, paths: Iterable[tuple[str, ...]]) -> None:
        for names in paths:
            self._at(names)

    def _at(self, names: tuple[str, ...]) -> Wanted:
        """What is at the end of a path, which it has from now on."""
        wanted = self
        for name in names:
            wanted = wanted.fields.setdefault(name, Wanted())
        return wanted
