"""Sources for topics that exist: what can be declared of their messages, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.definitions import Condition, Field, Place, Source
from registry.errors import DefinitionError
from registry.paths import Part, Path, parse_path
from tests.support.mapped_sources import FEEDS, source_of


def test_a_source_as_it_is_declared() -> None:
    source = source_of("""
items = "data"
where = { "^type" = "trade", live = [true, 1] }
message_key = "any"
partitioner = "crc32"
earliest = 2009-01-03
[source.map]
symbol = "^s"
price = { path = "p.x", scale = 1e-9 }
size = { path = '"a.b"' }
ts = { path = "T", digits = true }
op = { value = "trade" }
""")
    assert source == Source(
        name="trades",
        topic="trades",
        key=("symbol",),
        fields=(Field("price"), Field("size", optional=True)),
        places=(
            Place("symbol", "^s"),
            Place("price", "p.x", scale=-9),
            Place("size", '"a.b"'),
            Place("ts", "T", digits=True),
            Place("op", value="trade"),
        ),
        items="data",
        where=(Condition("^type", ("trade",)), Condition("live", (True, 1))),
        message_key="any",
        partitioner="crc32",
        earliest_ns=1_230_940_800 * 10**9,
    )
    assert source.paths == {
        "symbol": Path(Part.AROUND, ("s",)),
        "price": Path(Part.TICK, ("p", "x")),
        "size": Path(Part.TICK, ("a.b",)),
        "ts": Path(Part.TICK, ("T",)),
        "seq": Path(Part.TICK, ("seq",)),
    }


def test_a_source_in_a_format_of_a_schema_registry() -> None:
    plain = source_of("")
    assert (plain.format, plain.schema_id) == ("json", None)
    for form in ("avro", "protobuf"):
        source = source_of(f'format = "{form}"\nschema_id = 7')
        assert source == msgspec.structs.replace(plain, format=form, schema_id=7)
        assert msgspec.json.decode(msgspec.json.encode(source), type=Source) == source
    assert source_of('format = "json-schema"').format == "json-schema"
    guid = "6BA7B810-9dad-11d1-80b4-00c04fd430c8"
    rejecting = source_of(f'format = "avro"\nreject_schema_ids = ["{guid}", 9, 0, 9]')
    assert rejecting.reject_schema_ids == (0, 9, guid.lower())
    assert msgspec.json.decode(msgspec.json.encode(rejecting), type=Source) == rejecting


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ('format = "thrift"', "Invalid enum value 'thrift'"),
        ("schema_id = 7", 'with format = "json" it has no use'),
        ('format = "json-schema"\nschema_id = 7', 'with format = "json-schema" it has no use'),
        ('format = "avro"\nschema_id = -1', "must be an id of the schema registry"),
        ('format = "avro"\nschema_id = 4294967296', "must be an id of the schema registry"),
        ('format = "avro"\nschema_id = "7"', "Expected `int | null`, got `str`"),
        ("reject_schema_ids = [7]", 'with format = "json" it has no use'),
        (
            'format = "avro"\nreject_schema_ids = [4294967296]',
            "must be an id of the schema registry",
        ),
        (
            'format = "avro"\nreject_schema_ids = ["7"]',
            "'7' is neither an id (a number) nor a GUID",
        ),
        ('format = "avro"\nreject_schema_ids = [true]', "Expected `int | str`, got `bool`"),
    ],
)
def test_a_format_that_is_none(declared: str, said: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(said)):
        source_of(declared)


@pytest.mark.parametrize("source", [feed.source for feed in FEEDS])
def test_it_is_the_same_when_it_is_read_back(source: Source) -> None:
    assert msgspec.convert(msgspec.to_builtins(source), Source) == source
    assert msgspec.json.decode(msgspec.json.encode(source), type=Source) == source


WHERE = ('"^e" = ["t", "u"]', '"^live" = [true, 1, 0]', "n = 1")
MAP = ('symbol = "^s"', 'price = { path = "p", scale = 1e-9 }', 'ts = "t"', 'seq = "id"')
REWRITTEN = {
    'symbol = "^s"': """symbol = { path = '^"s"' }""",
    'ts = "t"': "ts = '\"t\"'",
    '"^e" = ["t", "u"]': """'^"e"' = ["u", "t", "u"]""",
    '"^live" = [true, 1, 0]': '"^live" = [0, 1, true]',
    "n = 1": "n = [1]",
}
"""Lines of a source, and others that say the same."""


def declared(where: Sequence[str], mapped: Sequence[str], items: str = '"data"') -> str:
    return "\n".join([f"items = {items}", "[source.where]", *where, "[source.map]", *mapped, ""])


@given(
    where=st.permutations(WHERE),
    mapped=st.permutations([*MAP, 'size = "size"', 'op = "op"']),
    rewritten=st.sets(st.sampled_from(sorted(REWRITTEN))),
)
def test_the_order_of_the_lines_and_the_way_they_are_written_mean_nothing(
    where: list[str], mapped: list[str], rewritten: set[str]
) -> None:
    def write(lines: list[str]) -> list[str]:
        return [REWRITTEN[line] if line in rewritten else line for line in lines]

    other = source_of(declared(write(where), write(mapped), """'"data"'"""))
    assert other == source_of(declared(WHERE, MAP))


def test_a_condition_of_true_is_not_one_of_the_number_1() -> None:
    assert source_of("where = { e = true }") != source_of("where = { e = 1 }")


def test_what_ships_says_nothing_new() -> None:
    assert source_of("").places == ()
    assert source_of("").partitioner == "murmur2"


@pytest.mark.parametrize(
    ("declared", "what"),
    [
        ('map = { volume = "v" }', "map has volume, and its ticks have symbol, price, size, ts"),
        ("map = { price = {} }", "map: price: give either a `path` or a `value`"),
        ('map = { price = { path = "p", value = 1 } }', "either a `path` or a `value`"),
        ('map = { price = { path = "p", scale = 0.25 } }', "scale 0.25 must be a power of ten"),
        ('map = { price = { path = "p", scale = 1.0 } }', "must be a power of ten"),
        ('map = { price = { path = "p", scale = -1e-9 } }', "must be a power of ten"),
        ('map = { price = { path = "p", scale = nan } }', "must be a power of ten"),
        ('map = { price = { path = "p", scale = 1e-23 } }', "must be a power of ten"),
        ('map = { ts = { path = "t", scale = 1e-9 } }', "only a number that a message has"),
        ("map = { price = { value = 1, scale = 1e-9 } }", "only a number that a message has"),
        ('map = { seq = { path = "t", digits = true } }', "`digits` says how `ts` is written"),
        ('map = { price = { path = "p", places = 2 } }', "unknown field `places`"),
        ('map = { price = "" }', "'' is no path"),
        ('map = { price = "a..b" }', "'a..b' is no path"),
        ('map = { price = "a." }', "'a.' is no path"),
        ("map = { price = '\"a' }", "is no path"),
        ('map = { price = "a.@b" }', "is no path"),
        (f'map = {{ price = "{".".join("a" * 17)}" }}', "is no path"),
        (f'map = {{ price = "{"a" * 501}" }}', "is no path"),
        ('map = { price = "@offset" }', "there are @key, @timestamp and @header.NAME"),
        ('map = { price = "@timestamp" }', "@timestamp is the time of a record, which only `ts`"),
        ('map = { price = "@key" }', "@key is the text of a key, which only a key field can be"),
        ('map = { price = "^p" }', "a path that begins with ^ leads to the message around"),
        ('where = { "^p" = 1 }', "a path that begins with ^ leads to the message around"),
        ('map = { price = "d", size = "d.s" }', "d is read as a value, and d.s leads through it"),
        ('map = { price = "seq.p" }', "seq is read as a value, and seq.p leads through it"),
        ('where = { "d.e" = 1 }\nmap = { price = "d" }', "leads through it"),
        ('items = "d"\nmap = { price = "^d.p" }', "d is read as a value"),
        ('items = "^d"', "items = '^d' must name a field of the message"),
        ('items = "@key"', "items = '@key' must name a field of the message"),
        ('where = { "e\\u0000" = 1 }', "holds the character NUL"),
        ("where = { e = [] }", "where: e has 0 values"),
        ("where = { e = 1.5 }", "Expected `bool | int | str | array`"),
        ("items = ''", "'' is no path"),
        ('where = { "@timestamp" = 1 }', "where: @timestamp is a time"),
        ('where = { "@header.x" = 1 }', "@header.x is text, so its values must be in quotes"),
        ('map = { symbol = { value = "" } }', "'' cannot be a key"),
        ("map = { symbol = { value = 1 } }", "1 cannot be a key"),
        ('map = { price = { value = "1" } }', "the constant '1' must be a finite number"),
        ("map = { price = { value = inf } }", "must be a finite number"),
        ("positive = true\nmap = { price = { value = 0 } }", "must be a positive number"),
        ("map = { size = { value = 1 } }", "a constant is never absent: leave out `optional`"),
        ("map = { ts = { value = 1 } }", "ts cannot be the constant 1; it may be read from a path"),
        ('map = { op = { value = "reset" } }', 'or be always "trade"'),
        ('message_key = "symbol"', "Invalid enum value 'symbol'"),
        ('partitioner = "random"', "Invalid enum value 'random'"),
        ('earliest = "1971-01-01"', "must be a date or a time without quotes, as 1971-01-01"),
        ("earliest = 1969-12-31", "earliest 1969-12-31 must be from 1970 to 2200"),
        ("earliest = 2201-01-01", "must be from 1970 to 2200"),
        ("earliest = 12:00:00", "must be a date or a time"),
    ],
)
def test_what_makes_no_sense_is_told(declared: str, what: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(what)) as error:
        source_of(declared)
    assert ": source trades" in str(error.value)


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=8)


@given(st.lists(names, min_size=1, max_size=16), st.sampled_from([Part.TICK, Part.AROUND]))
def test_every_name_can_be_written(parts: list[str], part: Part) -> None:
    path = Path(part, tuple(parts))
    assert parse_path(str(path), "here") == path


@given(st.text(max_size=12))
def test_any_text_is_a_path_or_an_error(text: str) -> None:
    try:
        path = parse_path(text, "here")
    except DefinitionError:
        return
    assert parse_path(str(path), "here") == path
