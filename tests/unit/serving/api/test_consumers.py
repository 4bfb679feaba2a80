"""Whose a request is: what can be a name, what is refused, and what counts beside a key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.formats.consumer import FORM, NAME, OTHERS, UNNAMED
from registry.lifecycle.api_keys import NAME as KEY
from serving.api.consumers import ConsumerOf, by_header, by_key, nobody
from serving.api.request_log import KEY_NAME
from serving.errors import InvalidRequest
from serving.usage import Consumers


def named(consumer_of: ConsumerOf, value: bytes | None, key: str | None = None) -> str:
    """The name that counts, given the header and the name of a key."""
    return consumer_of({} if key is None else {KEY_NAME: key}, value)


def test_the_header_names_the_consumer() -> None:
    consumer_of = by_header(Consumers(3))
    for _ in range(2):
        assert named(consumer_of, None) == UNNAMED
        for name in ("a", "b", "team/model:1.0+x@host"):
            assert named(consumer_of, name.encode()) == name
        assert named(consumer_of, b"d") == OTHERS


@given(st.one_of(st.binary(max_size=80), st.from_regex(NAME, fullmatch=True).map(str.encode)))
def test_what_is_no_name_is_refused(value: bytes) -> None:
    """So that nothing else ever comes into a table or a metric."""
    consumers = Consumers()
    if NAME.fullmatch(value.decode("latin-1")):
        assert named(by_header(consumers), value).encode() == value
        return
    with pytest.raises(InvalidRequest) as refused:
        named(by_header(consumers), value)
    assert FORM in refused.value.detail
    assert len(refused.value.detail) < 400
    assert consumers.known == {}


@pytest.mark.parametrize("value", [b"", b" a", b"a b", b"-a", b"a\n", b"a" * 65, b"\xe4", b"a;b"])
def test_names_have_a_form(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match="X-Consumer"):
        named(by_header(Consumers()), value)


def test_where_keys_are_needed_the_header_is_not_looked_at() -> None:
    consumer_of = by_key(Consumers(1))
    assert named(consumer_of, b"no name", "model") == "model"
    assert named(consumer_of, b"model", "report") == OTHERS


@given(st.from_regex(KEY, fullmatch=True))
def test_names_of_keys_can_name_consumers(name: str) -> None:
    assert NAME.fullmatch(name)


def test_a_route_that_is_told_nothing_counts_for_nobody() -> None:
    assert named(nobody, b"a") == UNNAMED
