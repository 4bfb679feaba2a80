"""The bytes of Feast's registry, read by field numbers alone, as its .proto files give them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from registry.features_file import read
from tests.support.served import catalog_of
from tickwell.feast_registry import registry_file

CATALOG = catalog_of(read())
NOW = 1_700_000_000 * 10**9 + 5
Fields = dict[int, list[Any]]


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> Fields:
    """The values of a message by field number: integers, and bytes of texts and messages."""
    found: Fields = defaultdict(list)
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire_type = divmod(key, 8)
        value: Any
        value, at = varint(data, at)
        if wire_type == 2:
            value, at = data[at : at + value], at + value
        else:
            assert wire_type == 0
        found[number].append(value)
    return found


def specs(registry: Fields, number: int) -> Iterator[Fields]:
    """What is specified of the objects of a kind: each has it in field 1."""
    for one in registry[number]:
        yield fields(fields(one)[1][0])


def test_the_numbers_are_those_of_feast() -> None:
    registry = fields(registry_file(CATALOG, "market", NOW))
    assert registry[3] == [b"1"]  # registry_schema_version
    last_updated = fields(registry[5][0])
    assert (last_updated[1], last_updated[2]) == ([1_700_000_000], [5])
    assert [spec[1] for spec in specs(registry, 17)] == [[b"market"]]  # projects
    entities = {spec[1][0]: spec for spec in specs(registry, 1)}
    assert set(entities) == {b"symbol", b"portfolio"}
    for name, spec in entities.items():  # value_type STRING, join_key, project
        assert (spec[2], spec[4], spec[9]) == ([2], [name], [b"market"])
    views = {spec[1][0]: spec for spec in specs(registry, 6)}
    assert list(views) == [b"price", b"volume", b"position"]
    position = views[b"position"]
    assert (position[2], position[3], position[8]) == ([b"market"], [b"portfolio", b"symbol"], [1])
    assert [fields(column)[1] for column in position[12]] == [[b"portfolio"], [b"symbol"]]
    assert position[6] == []  # without a max_age a view has no ttl
    assert fields(views[b"price"][6][0])[1] == [60]
    volatility = fields(views[b"price"][4][3])
    assert (volatility[1], volatility[2]) == ([b"price_volatility"], [5])  # DOUBLE
    tags = {fields(tag)[1][0]: fields(tag)[2][0] for tag in volatility[3]}
    assert tags[b"aliases"] == b"volatility"
    services = {spec[1][0]: spec for spec in specs(registry, 7)}
    assert set(services) == {b"symbol", b"portfolio", b"portfolio-symbol"}
    projections = {
        fields(projection)[1][0]: [fields(column)[1][0] for column in fields(projection)[2]]
        for projection in services[b"symbol"][3]
    }
    assert set(projections) == {b"price", b"volume"}
    assert projections[b"volume"] == [b"current_volume", b"volume_sma_10"]


def test_a_registry_is_another_one_when_features_have_changed() -> None:
    """`version_id`; the same catalog has the same bytes."""
    first = registry_file(CATALOG, "market", NOW)
    assert registry_file(CATALOG, "market", NOW) == first
    changed = msgspec.structs.replace(CATALOG, active={**CATALOG.active})
    changed.active.pop("portfolio_exposure")
    assert fields(registry_file(changed, "market", NOW))[4] != fields(first)[4]


def test_only_active_features_are_in_it() -> None:
    active = {name: v for name, v in CATALOG.active.items() if name != "price_sma_20"}
    registry = fields(registry_file(msgspec.structs.replace(CATALOG, active=active), "market", NOW))
    (price,) = (spec for spec in specs(registry, 6) if spec[1] == [b"price"])
    assert b"price_sma_20" not in [fields(feature)[1][0] for feature in price[4]]
