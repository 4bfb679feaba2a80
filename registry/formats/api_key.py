"""The text of an API key: `tw_`, then 256 random bits and a checksum of them in base64url.

Only its SHA-256 is kept. That needs no salt and no slow hash, which make guessing dear: nobody
guesses 256 random bits. The checksum tells a key that was cut or mistyped from one that is not
valid, without a look at any store; the fixed beginning lets programs that search for published
secrets find it.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from zlib import crc32

BEGIN = b"tw_"
RANDOM_BYTES = 32
CHECKSUM_BYTES = 4

LENGTH = len(BEGIN) + (RANDOM_BYTES + CHECKSUM_BYTES) // 3 * 4
"""Characters of a key. Its bytes are a multiple of three, so that base64 neither pads them nor has
bits to spare: each key has one text."""

ALPHABET = re.compile(rb"[A-Za-z0-9_-]*")
FINGERPRINT_DIGITS = 12


def make() -> str:
    """A new key."""
    random = secrets.token_bytes(RANDOM_BYTES)
    return (BEGIN + urlsafe_b64encode(random + _checksum(random))).decode()


def digest(key: bytes) -> bytes:
    """The SHA-256 of a key's text: 32 bytes, all that is kept of it."""
    return sha256(key).digest()


def fingerprint(kept: bytes) -> str:
    """The first digits of a key's SHA-256, by which people and logs name it without telling it."""
    return kept.hex()[:FINGERPRINT_DIGITS]


def flaw(key: bytes) -> str:
    """Why a text is no key at all, "" where it may be one. The reason has no part of the text."""
    if not key.startswith(BEGIN):
        return f"a key begins with {BEGIN.decode()}"
    if len(key) != LENGTH:
        change = "cut" if len(key) < LENGTH else "joined with something else"
        return f"it has {len(key)} characters and a key has {LENGTH}: it was {change}"
    encoded = key[len(BEGIN) :]
    if ALPHABET.fullmatch(encoded):
        decoded = urlsafe_b64decode(encoded)
        if decoded[RANDOM_BYTES:] == _checksum(decoded[:RANDOM_BYTES]):
            return ""
    return "its checksum does not fit: a character of it was changed"


def _checksum(random: bytes) -> bytes:
    return crc32(random).to_bytes(CHECKSUM_BYTES, "big")
