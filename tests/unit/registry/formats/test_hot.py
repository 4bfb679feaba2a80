"""The layouts of the hot tier."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from registry.formats.hot import HOME, HOME_LAYOUT, TOKEN_BYTES, mark_key, row_key
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


def mark_of(in_hot: bytes) -> str:
    """The key of the mark that a row in hot needs."""
    return mark_key(*HOME_LAYOUT.struct.unpack(in_hot[HOME]))


@given(origin=ORIGINS, token=st.binary(min_size=8, max_size=8))
def test_a_row_names_the_mark_that_it_needs(origin: Origin, token: bytes) -> None:
    row = packed(origin)
    in_hot = token + row
    assert mark_of(in_hot) == mark_key(origin.topic_id, origin.partition)
    assert unpack(in_hot[TOKEN_BYTES:]).origin == origin
    assert in_hot[HOME] == origin.pack()[:20]


@given(one=ORIGINS, other=ORIGINS)
def test_rows_of_other_partitions_need_other_marks(one: Origin, other: Origin) -> None:
    is_same = (one.topic_id, one.partition) == (other.topic_id, other.partition)
    keys = [mark_of(bytes(8) + packed(origin)) for origin in (one, other)]
    assert (keys[0] == keys[1]) == is_same


def test_sources_and_entities_have_keys_of_their_own() -> None:
    pairs = [("stock", "AAPL"), ("stock", "AAPL:1"), ("trade", "AAPL"), ("stock", "")]
    assert len({row_key(*pair) for pair in pairs}) == len(pairs)
