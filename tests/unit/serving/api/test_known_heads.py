"""A head that is known is found by its own bytes alone, but for the id of the request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.known_heads import KnownHeads, split

BEGIN = b"POST /a HTTP/1.1\r\nHost: a\r\n"
BODY = b'{"a": 1}'
END = b"Content-Length: %d\r\n\r\n" % len(BODY)
HEAD = BEGIN + b"X-Request-Id: one\r\n" + END


def known(head: bytes = HEAD) -> KnownHeads[str]:
    heads: KnownHeads[str] = KnownHeads()
    found = split(head + BODY)
    assert found is not None
    heads.keep(found, len(BODY), "known")
    return heads


def test_a_head_is_found_with_any_sane_id() -> None:
    heads = known()
    assert heads.find(HEAD + BODY) == ("known", b"one", BODY)
    assert heads.find(HEAD.replace(b"one", b"another") + BODY) == ("known", b"another", BODY)
    assert known(BEGIN + END).find(BEGIN + END + BODY) == ("known", None, BODY)


@pytest.mark.parametrize(
    "data",
    [
        HEAD.replace(b"one", b"") + BODY,
        HEAD.replace(b"one", b"o ne") + BODY,
        HEAD.replace(b"one", b"one ") + BODY,
        HEAD.replace(b"one", b"\xff") + BODY,
        HEAD.replace(b"one", b"o" * 129) + BODY,
        HEAD.replace(b"one", b"one\r\nHost: b") + BODY,
        HEAD.replace(b"one", b"one\r\nX-Request-Id: two") + BODY,
        HEAD.replace(b"one", b"one\rHost: b") + BODY,
        HEAD.replace(b"one", b"one\nHost: b") + BODY,
        HEAD.replace(b"X-Request-Id", b"x-request-id") + BODY,
        HEAD.replace(b"Host: a", b"Host: b") + BODY,
        HEAD.replace(b"8\r\n", b"9\r\n") + BODY,
        BEGIN + END + BODY,
        HEAD + BODY[:-1],
        HEAD + BODY + b"P",
        HEAD + BODY + HEAD + BODY,
        HEAD[:-1],
        b"",
    ],
)
def test_what_is_another_request_or_not_whole_is_not_found(data: bytes) -> None:
    assert known().find(data) is None


@given(st.binary(max_size=200), st.integers(0, len(HEAD)), st.integers(0, len(HEAD)))
def test_what_is_changed_anywhere_is_not_found(other: bytes, one: int, two: int) -> None:
    begin, end = sorted((one, two))
    changed = HEAD[:begin] + other + HEAD[end:]
    found = known().find(changed + BODY)
    if found is not None:
        before, after = HEAD.split(b"one")
        assert found[1] is not None
        assert changed == before + found[1] + after


def test_a_long_head_is_not_kept() -> None:
    assert split(BEGIN + b"a: %b\r\n" % (b"a" * 2_048) + END + BODY) is None


def test_a_head_that_comes_again_takes_no_more_room() -> None:
    """It does with each request that is not answered directly; the others would be forgotten."""
    heads: KnownHeads[str] = KnownHeads(most_bytes=10_000)
    one, two = (BEGIN + line + END for line in (b"a: 1\r\n", b"a: 2\r\n"))
    for head in (one, *[two] * 100):
        found = split(head + BODY)
        assert found is not None
        heads.keep(found, len(BODY), "known")
    assert heads.find(one + BODY) == ("known", None, BODY)
