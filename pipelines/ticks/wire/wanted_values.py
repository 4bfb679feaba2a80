"""What of a message its source reads: the values that its paths lead to, and no others.

In the formats of a schema registry a few bytes may stand for thousands of values, as a record's
fields that are not set. Only those that are read are made JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipelines.ticks.wire.values import of_no_type
from registry.definitions import Source
from registry.paths import Part, parse_path


@dataclass(slots=True)
class Wanted:
    """The fields that are read of an object; of a value at the end of a path there are none.

    With `is_many` it may be an array of such objects, and `is_number` is a value that is to be one.
    """

    fields: dict[str, Wanted] = field(default_factory=dict)
    is_many: bool = False
    is_number: bool = False

    @classmethod
    def of(cls, source: Source) -> Wanted:
        """What a source reads of a message."""
        where = f"source {source.name}"
        message = ticks = cls()
        if source.items is not None:
            ticks = message._at(parse_path(source.items, where).names)
        ticks.is_many = True
        begin = {Part.TICK: ticks, Part.AROUND: message}
        for name, path in source.paths.items():
            if path.is_json:
                begin[path.part]._at(path.names).is_number |= name in source.field_names
        for condition in source.where:
            path = parse_path(condition.path, where)
            if path.is_json:
                begin[path.part]._at(path.names)
        return message

    def only(self, value: Any) -> Any:
        """The part of a value that is read; an object or array that is none has nothing in it.

        Bytes are no number, even if they are its digits: those of a decimal may be so by chance.
        """
        if isinstance(value, dict):
            return {
                name: wanted.only(value[name])
                for name, wanted in self.fields.items()
                if name in value
            }
        if isinstance(value, list):
            return [self.only(each) for each in value] if self.is_many else []
        if self.is_number and isinstance(value, bytes):
            return of_no_type(value)
        return value

    def _at(self, names: tuple[str, ...]) -> Wanted:
        """What is at the end of a path, which it has from now on."""
        wanted = self
        for name in names:
            wanted = wanted.fields.setdefault(name, Wanted())
        return wanted
