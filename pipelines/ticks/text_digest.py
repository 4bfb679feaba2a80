"""The first 64 bits of a text's SHA-256 (FIPS 180-4), compiled: the number of a `seq` in text."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np

from pipelines.runtime.array_types import Bytes, Int64s
from pipelines.runtime.machine_code import compiled
from pipelines.ticks.columns import NO_SEQ

WORDS = 64
"""Words of 32 bits that the rounds of a block take."""


def _primes(many: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < many:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def _cube_root(number: int) -> int:
    """Rounded down."""
    root = int(number ** (1 / 3))
    while root**3 > number:
        root -= 1
    while (root + 1) ** 3 <= number:
        root += 1
    return root


def _constants() -> tuple[Any, Any]:
    """The first 32 bits of the fractions of cube and square roots of the first primes."""
    rounds = [_cube_root(prime << 96) & 0xFFFFFFFF for prime in _primes(64)]
    begin = [isqrt(prime << 64) & 0xFFFFFFFF for prime in _primes(8)]
    return np.array(rounds, np.uint64), np.array(begin, np.uint64)


ROUNDS, BEGIN = _constants()
M32 = np.uint64(0xFFFFFFFF)
U2, U3, U6, U7, U10, U11, U13 = (np.uint64(bits) for bits in (2, 3, 6, 7, 10, 11, 13))
U17, U18, U19, U22, U25, U32 = (np.uint64(bits) for bits in (17, 18, 19, 22, 25, 32))
END_MARK = 0x80


@compiled()
def _turned(word, bits):  # type: ignore[no-untyped-def]
    """A word of 32 bits, turned to the right."""
    return (word >> bits | word << (U32 - bits)) & M32


@compiled()
def _byte(data, start, size, blocks, index):  # type: ignore[no-untyped-def]
    """A byte of the padded text: it, an end mark, zeros, and its length in bits in eight bytes."""
    if index < size:
        return np.uint64(data[start + index])
    if index == size:
        return np.uint64(END_MARK)
    from_end = blocks * 64 - 1 - index
    if from_end < 8:
        return np.uint64(size * 8 >> 8 * from_end & 0xFF)
    return np.uint64(0)


@compiled()
def _digest(data, start, end, words):  # type: ignore[no-untyped-def]
    size = end - start
    blocks = (size + 9 + 63) // 64
    h0, h1, h2, h3 = BEGIN[0], BEGIN[1], BEGIN[2], BEGIN[3]
    h4, h5, h6, h7 = BEGIN[4], BEGIN[5], BEGIN[6], BEGIN[7]
    for block in range(blocks):
        for t in range(16):
            word = np.uint64(0)
            for k in range(4):
                byte = _byte(data, start, size, blocks, block * 64 + 4 * t + k)
                word = word << np.uint64(8) | byte
            words[t] = word
        for t in range(16, WORDS):
            near, far = words[t - 15], words[t - 2]
            small = _turned(near, U7) ^ _turned(near, U18) ^ near >> U3
            large = _turned(far, U17) ^ _turned(far, U19) ^ far >> U10
            words[t] = (words[t - 16] + small + words[t - 7] + large) & M32
        a, b, c, d, e, f, g, h = h0, h1, h2, h3, h4, h5, h6, h7
        for t in range(WORDS):
            turned = _turned(e, U6) ^ _turned(e, U11) ^ _turned(e, U25)
            one = h + turned + (e & f ^ (e ^ M32) & g) + ROUNDS[t] + words[t]
            turned = _turned(a, U2) ^ _turned(a, U13) ^ _turned(a, U22)
            other = turned + (a & b ^ a & c ^ b & c)
            h, g, f, e = g, f, e, (d + one) & M32
            d, c, b, a = c, b, a, (one + other) & M32
        h0, h1, h2, h3 = (h0 + a) & M32, (h1 + b) & M32, (h2 + c) & M32, (h3 + d) & M32
        h4, h5, h6, h7 = (h4 + e) & M32, (h5 + f) & M32, (h6 + g) & M32, (h7 + h) & M32
    digest = np.int64(h0 << U32 | h1)
    return digest + 1 if digest == NO_SEQ else digest


def digest_texts(data: Bytes, texts: Int64s, numbers: Int64s) -> None:
    """Write the number of each text: the first eight bytes of its SHA-256, big-endian and signed.

    It is never `NO_SEQ`, in whose place is the number after it. `texts` (n, 2) are begins and ends
    in `data`; where there is none both are 0, and the number stays.
    """
    _digest_all(data, texts, numbers, np.empty(WORDS, np.uint64))


@compiled("void(uint8[::1], int64[:,::1], int64[::1], uint64[::1])")
def _digest_all(data, texts, numbers, words):  # type: ignore[no-untyped-def]
    for i in range(texts.shape[0]):
        if texts[i, 1] != 0:
            numbers[i] = _digest(data, texts[i, 0], texts[i, 1], words)
