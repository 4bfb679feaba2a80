"""The text of an API key: what is one, and how one that was changed is told."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.formats import api_key


@given(st.data())
def test_a_key_is_sound_and_any_change_of_it_is_told(data: st.DataObject) -> None:
    key = api_key.make()
    assert re.fullmatch(r"tw_[A-Za-z0-9_-]{48}", key)
    assert api_key.flaw(key.encode()) == ""
    at = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != ord(key[at])))
    changed = key[:at].encode() + bytes([other]) + key[at + 1 :].encode()
    assert api_key.flaw(changed)
    assert "cut" in api_key.flaw(key[: max(at, 3)].encode()) or at == len(key)
    assert "joined" in api_key.flaw(key.encode() + data.draw(st.binary(min_size=1)))


@given(st.binary())
def test_a_reason_has_nothing_of_the_text(text: bytes) -> None:
    secret = b"tw_" + base64.b64encode(text * 9)
    shown = api_key.flaw(secret)
    assert len(text) < 5 or secret[3:].decode() not in shown


def test_a_key_is_256_random_bits_and_their_checksum() -> None:
    made = {api_key.make() for _ in range(1_000)}
    assert len(made) == 1_000
    ones = 0
    for key in made:
        decoded = base64.b64decode(key[3:], altchars=b"-_", validate=True)
        random, checksum = decoded[:32], decoded[32:]
        assert zlib.crc32(random) == int.from_bytes(checksum, "big")
        ones += int.from_bytes(random, "big").bit_count()
    # half of 256,000 bits, whose standard deviation is 253
    assert abs(ones - 128_000) < 10 * 253


def test_what_is_kept_is_the_sha256_of_the_text() -> None:
    key = api_key.make()
    assert api_key.digest(key.encode()) == hashlib.sha256(key.encode()).digest()
    kept = bytes(range(32))
    assert kept.hex().startswith(api_key.fingerprint(kept))
    assert len(api_key.fingerprint(kept)) == 12


@pytest.mark.parametrize("text", [b"", b"tw_", b"Bearer", b"\xff" * 51, b"tw_" + b"=" * 48])
def test_what_is_no_key(text: bytes) -> None:
    assert api_key.flaw(text)
