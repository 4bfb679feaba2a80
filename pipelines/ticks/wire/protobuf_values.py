"""Protobuf: a schema to a function that reads a message of one of its types.

The registry gives a file as descriptors, so no compiler is needed. Field names are those of the
file. A field that has presence and is not set is absent; any other is its type's zero, as Protobuf
defines: there an absent price and a price of 0 are the same bytes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NamedTuple

import confluent_kafka.schema_registry.protobuf  # noqa: F401 -- it loads the files of confluent/
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

from pipelines.ticks.message_limits import MAX_MESSAGE_BYTES
from pipelines.ticks.wire.schema_registry import Schema
from pipelines.ticks.wire.values import Unreadable, decimal_text, time_text
from pipelines.ticks.wire.wanted_values import Wanted

MOST_VALUES = MAX_MESSAGE_BYTES // 2
"""Values in a message: one takes at least two bytes in JSON, which may not be longer."""

MOST_PARSED_BYTES = 256 << 20
"""Bytes of memory that a message may take when it is parsed: each of its elements takes as much as
all fields of its type need, set or not."""

FEWEST_ELEMENT_BYTES = 2
"""Bytes of an element of a field, which has a tag and a length, in a message."""

Indexes = tuple[int, ...]
"""Which type of a file: the index of one, of one that is nested in it, and so on."""

GOOGLES: Final = re.compile(r"google/(protobuf|type)/(\w+)\.proto")
"""Files that serializers take as known, and so do not register."""

WRAPPERS: Final = frozenset(wrappers_pb2.DESCRIPTOR.message_types_by_name)


def value_reader(
    written_in: Schema, read_in: Schema | None, wanted: Wanted
) -> Callable[[bytes, Indexes], Any]:
    """A function from a message's bytes, and its type's indexes, to what is `wanted` of it in JSON.

    With `read_in` it is read by the type of that name there: fields are known by their numbers, so
    one that was renamed has its name there. Raises `Unreadable`, as the function does; that also
    raises what the library does, which is anything: a file may declare a type by the name of a
    known one.
    """
    pool, file = _pool(written_in)
    if read_in is not None:
        pool, _ = _pool(read_in)
    known: dict[Indexes, _MessageType] = {}

    def read(encoded: bytes, indexes: Indexes) -> Any:
        if indexes not in known:
            known[indexes] = _MessageType.of(pool, _type_at(file, indexes))
        kind = known[indexes]
        if len(encoded) > kind.most_bytes:
            raise Unreadable(
                f"{len(encoded)} bytes of a type whose elements take much memory; at most "
                f"{kind.most_bytes} are taken"
            )
        message = kind.make()
        message.ParseFromString(encoded)
        return _Values().of(message, wanted)

    return read


class _MessageType(NamedTuple):
    """What makes messages of a type, and how many bytes of one are parsed."""

    make: Callable[[], Any]
    most_bytes: int

    @classmethod
    def of(cls, pool: Any, name: str) -> _MessageType:
        """The type of that full name. Raises `Unreadable`."""
        try:
            descriptor = pool.FindMessageTypeByName(name)
        except KeyError:
            raise Unreadable(f"the schema that it is to be read in has no message {name}") from None
        elements = MOST_PARSED_BYTES // (_largest_element(descriptor) or 1)
        make = message_factory.GetMessageClass(descriptor)
        return cls(make, elements * FEWEST_ELEMENT_BYTES)


class _Values:
    """What is wanted of a message in JSON; counts its values."""

    def __init__(self) -> None:
        self._many = 0
        self._names: dict[tuple[Any, int], str | int] = {}
        """Of values of enumerations; protobuf makes a new text each time, however long it is."""

    def of(self, message: Any, wanted: Wanted) -> Any:
        descriptor = message.DESCRIPTOR
        match descriptor.full_name.rpartition("."):
            case ("google.protobuf", _, "Timestamp"):
                if not 0 <= message.nanos < 10**9:
                    raise Unreadable(f"a Timestamp with {message.nanos} nanoseconds")
                return time_text(message.seconds * 10**9 + message.nanos, 10**9)
            case ("google.protobuf", _, name) if name in WRAPPERS:
                return self._one(descriptor.fields_by_name["value"], message.value, wanted)
            case ("confluent.type", _, "Decimal"):
                return decimal_text(message.value, message.scale)
        self._count(len(wanted.fields))
        known = descriptor.fields_by_name
        return {
            name: self._field(known[name], getattr(message, name), inner)
            for name, inner in wanted.fields.items()
            if name in known and (not known[name].has_presence or message.HasField(name))
        }

    def _field(self, field: Any, value: Any, wanted: Wanted) -> Any:
        if not field.is_repeated:
            return self._one(field, value, wanted)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            of_value = entry.fields_by_name["value"]
            return {
                name: self._one(of_value, value[key], wanted.fields[name])
                for key in value
                if (name := _key_name(key)) in wanted.fields
            }
        if not wanted.is_many:
            return []
        self._count(len(value))
        return [self._one(field, each, wanted) for each in value]

    def _one(self, field: Any, value: Any, wanted: Wanted) -> Any:
        if field.message_type is not None:
            return self.of(value, wanted)
        if field.enum_type is not None:
            return self._name(field.enum_type, value)
        return wanted.only(value)

    def _name(self, kind: Any, number: int) -> str | int:
        """The name of a value of an enumeration; its number where it has none."""
        if (kind, number) not in self._names:
            known = kind.values_by_number.get(number)
            self._names[kind, number] = number if known is None else known.name
        return self._names[kind, number]

    def _count(self, many: int) -> None:
        self._many += many
        if self._many > MOST_VALUES:
            raise Unreadable(f"it holds over {MOST_VALUES} values")


def _key_name(key: Any) -> str:
    """The name of a map's key in JSON."""
    return str(key).lower() if isinstance(key, bool) else str(key)


def _pool(schema: Schema) -> tuple[Any, Any]:
    """The types of a schema, and its own file. Raises `Unreadable`."""
    pool, known = descriptor_pool.DescriptorPool(), set[str]()
    try:
        files = [(name, _file(name, text)) for name, text in schema.references]
        file = _file("default", schema.text)
        for name, each in (*files, ("default", file)):
            _add_well_known(pool, each.dependency, known | {name for name, _ in files})
            pool.Add(each)
            known.add(name)
    except MemoryError:
        raise
    except Exception as error:  # of any kind: a schema can be wrong in any way
        raise Unreadable(f"is no Protobuf schema that can be read: {error}") from None
    return pool, file


def _file(name: str, text: str) -> Any:
    """A file of descriptors, under the name that others import it by."""
    file = descriptor_pb2.FileDescriptorProto()
    file.ParseFromString(base64.b64decode(text))
    file.name = name
    return file


def _add_well_known(pool: Any, names: Iterable[str], known: set[str]) -> None:
    """Add the files that come with the packages, as google/protobuf/timestamp.proto.

    Protobuf finds those whose modules are imported, by whomever. So they are imported here, or it
    would depend on the program what a message is.
    """
    for name in names:
        if name in known:
            continue
        known.add(name)
        if its := GOOGLES.fullmatch(name):
            with suppress(ImportError):  # it is not found, and said so below
                import_module("google.{}.{}_pb2".format(*its.groups()))
        file = descriptor_pb2.FileDescriptorProto()
        descriptor_pool.Default().FindFileByName(name).CopyToProto(file)
        _add_well_known(pool, file.dependency, known)
        pool.Add(file)


def _largest_element(root: Any) -> int:
    """Bytes of memory that an element of a field takes at most, in a message of the type `root`."""
    largest, seen, found = 0, set(), [(root, False)]
    while found:
        kind, is_element = found.pop()
        if (kind.full_name, is_element) in seen:
            continue
        seen.add((kind.full_name, is_element))
        if is_element:
            largest = max(
                largest, sum(16 if f.cpp_type == f.CPPTYPE_STRING else 8 for f in kind.fields)
            )
        found += [
            (field.message_type, is_element or field.is_repeated)
            for field in kind.fields
            if field.message_type is not None
        ]
    return largest


def _type_at(file: Any, indexes: Indexes) -> str:
    """The full name of a message type of a file. Raises `Unreadable`."""
    types, names = file.message_type, [file.package] if file.package else []
    for index in indexes:
        if not 0 <= index < len(types):
            raise Unreadable(f"its file has no message type at {list(indexes)}")
        names.append(types[index].name)
        types = types[index].nested_type
    return ".".join(names)
