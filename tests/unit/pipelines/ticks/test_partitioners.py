"""Partitioners: both forms of ours, and the oracle's, written from the clients' sources."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ticks.partitioners import (
    CODES,
    HASHES,
    find_fitting,
    has_no_partition,
    wrong_partition,
)
from registry.definitions import Partitioner
from tests.oracle.partitioners import partition
from tests.support.examples import examples


@examples(5)
@given(st.binary(max_size=40), st.integers(1, 5000), st.sampled_from(sorted(HASHES)))
def test_of_every_key(key: bytes, partitions: int, name: Partitioner) -> None:
    right = partition(name, key, partitions)
    assert HASHES[name](key) % partitions == right
    data = np.frombuffer(bytearray(b"__" + key + b"__"), np.uint8)
    spans, fits = np.array([[2, 2 + len(key)]]), np.empty(1, np.bool_)
    for tried in {right, (right + 1) % partitions}:
        find_fitting(data, spans, CODES[name], partitions, tried, fits)
        is_none = name == "crc32" and not key
        assert fits[0] == (tried == right and not is_none)


@pytest.mark.parametrize(
    ("partitions", "fits"),
    [(0, [True, True, True]), (1, [True, True, True]), (2, [False, False, True])],
)
def test_a_key_that_is_not_judged_is_needed_in_several_partitions(
    partitions: int, fits: list[bool]
) -> None:
    data, spans = np.frombuffer(bytearray(b"key"), np.uint8), np.array([[-1, -1], [1, 1], [0, 3]])
    found = np.empty(3, np.bool_)
    find_fitting(data, spans, CODES["any"], partitions, 0, found)
    assert found.tolist() == fits
    keys = (None, b"", b"key")
    assert [not has_no_partition("any", key, partitions) for key in keys] == fits


@pytest.mark.parametrize(
    ("name", "hashed"),
    [("crc32", 0xCBF43926), ("fnv1a", 2**32 - 0xBB86B11C)],
)
def test_the_hash_of_nine_digits(name: Partitioner, hashed: int) -> None:
    """The check values of CRC-32 and FNV-1a, which loses its sign."""
    assert HASHES[name](b"123456789") == hashed


def test_the_partitioner_that_a_producer_seems_to_use_is_named() -> None:
    key = b"SYM7"
    places = {name: hashed(key) % 1000 for name, hashed in HASHES.items()}
    assert wrong_partition("murmur2", key, places["murmur2"], 1000) is None
    told = wrong_partition("murmur2", key, places["crc32"], 1000)
    assert told is not None
    assert f"came from partition {places['crc32']}" in told
    assert f"belongs in {places['murmur2']} of 1000" in told
    assert "seems to use crc32 (librdkafka's default); set the producer's" in told
    assert "partitioner=murmur2_random" in told
    nowhere = next(n for n in range(1000) if n not in places.values())
    assert "no partitioner that is known" in str(wrong_partition("murmur2", key, nowhere, 1000))
    assert wrong_partition("any", key, nowhere, 1000) is None
