"""What differs between two definitions is told in the words of a features file."""

from __future__ import annotations

import msgspec
import pytest

from registry.definitions import Condition, Place, Source
from registry.wording import differences
from tests.support.mapped_sources import source_of


def told(was: str, now: str) -> str:
    return differences(source_of(was), source_of(now), Source.__struct_fields__)


@pytest.mark.parametrize(
    ("was", "now", "what"),
    [
        ('skew = "1s"', 'skew = "1500ms"', "skew `1s` would become `1500ms`"),
        ('skew = "0s"', 'skew = "90s"', "skew `0s` would become `90s`"),
        ("", "earliest = 2009-01-03", "earliest `1971-01-01` would become `2009-01-03`"),
        ("", "earliest = 2009-01-03T18:15:05", "would become `2009-01-03T18:15:05`"),
        ("", "history = 4096", "history `1024` would become `4096`"),
        ("", "positive = true", "positive `false` would become `true`"),
        ("", 'items = "data"', "items `nothing` would become `data`"),
        ("", 'partitioner = "any"', "partitioner `murmur2` would become `any`"),
        ("", 'map = { price = "data.p" }', "map.price `price` would become `data.p`"),
        (
            'map = { price = "p" }',
            'map = { price = { path = "p", scale = 1e-9 } }',
            'map.price `p` would become `{ path = "p", scale = 1e-9 }`',
        ),
        (
            "",
            'map = { ts = { path = "t", digits = true }, symbol = { value = "A" } }',
            'map.symbol `symbol` would become `{ value = "A" }` and '
            'map.ts `ts` would become `{ path = "t", digits = true }`',
        ),
        (
            "where = { e = [1, true] }",
            'where = { e = "t", "^d" = 1 }\nitems = "x"',
            'items `nothing` would become `x` and where `{ "e" = [1, true] }` would become '
            '`{ "^d" = 1, "e" = "t" }`',
        ),
    ],
)
def test_a_change_is_told_as_a_file_writes_it(was: str, now: str, what: str) -> None:
    assert told(was, now).endswith(what)
    assert told(was, was) == told(now, now) == ""


def test_fields_are_told_as_tables() -> None:
    fewer = source_of("")
    more = msgspec.structs.replace(fewer, fields=fewer.fields[:1])
    assert differences(fewer, more, ["fields"]) == (
        'fields `[{ name = "price" }, { name = "size", optional = true }]` would become '
        '`[{ name = "price" }]`'
    )


def test_what_an_earlier_build_recorded_in_the_order_of_its_file_does_not_differ() -> None:
    conditions = (Condition("a", ("t", "u")), Condition("b", (1,)))
    places = (Place("symbol", "s"), Place("price", "p"))
    source = msgspec.structs.replace(source_of(""), where=conditions, places=places)
    turned = msgspec.structs.replace(
        source, where=(conditions[1], Condition("a", ("u", "t"))), places=places[::-1]
    )
    written_out = msgspec.structs.replace(source, places=(*places, Place("ts", "ts")))
    assert differences(source, turned, Source.__struct_fields__) == ""
    assert differences(source, written_out, Source.__struct_fields__) == ""
