"""The layouts of the hot tier."""

from __future__ import annotations

import secrets

from hypothesis import given
from hypothesis import strategies as st

from registry.formats.hot import HOME, TOKEN_BYTES, is_believed, mark_key, mark_key_of, row_key
from registry.formats.origin import Origin
from registry.formats.row import Row, pack, unpack

ORIGINS = st.builds(
    Origin,
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**31 - 1),
)


def packed(origin: Origin) -> bytes:
    return pack(Row(7, 1, 2, 3, origin, b"\0\1", (1.5, float("nan"))))


@given(origin=ORIGINS, token=st.binary(min_size=8, max_size=8))
def test_a_row_names_the_mark_that_it_needs(origin: Origin, token: bytes) -> None:
    row = packed(origin)
    in_hot = token + row
    assert mark_key_of(in_hot) == mark_key(origin.topic_id, origin.partition)
    assert unpack(in_hot[TOKEN_BYTES:]).origin == origin
    assert in_hot[HOME] == origin.pack()[:20]


@given(one=ORIGINS, other=ORIGINS)
def test_rows_of_other_partitions_need_other_marks(one: Origin, other: Origin) -> None:
    is_same = (one.topic_id, one.partition) == (other.topic_id, other.partition)
    keys = [mark_key_of(bytes(8) + packed(origin)) for origin in (one, other)]
    assert (keys[0] == keys[1]) == is_same


def test_a_row_is_believed_under_its_own_token_alone() -> None:
    token, other = secrets.token_bytes(8), secrets.token_bytes(8)
    row = token + packed(Origin(bytes(16), 0, 5, 0))
    assert is_believed(row, token)
    assert not is_believed(row, other)
    assert not is_believed(row, None)
    assert not is_believed(None, token)
    assert not is_believed(None, None)


def test_sources_and_entities_have_keys_of_their_own() -> None:
    pairs = [("stock", "AAPL"), ("stock", "AAPL:1"), ("trade", "AAPL"), ("stock", "")]
    assert len({row_key(*pair) for pair in pairs}) == len(pairs)
