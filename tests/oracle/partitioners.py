"""The partition of a key, by each kind of client."""

from __future__ import annotations

import math
import zlib


def partition(partitioner: str, key: bytes, partitions: int) -> int:
    """Where a client puts a key, written from the clients' own sources.

    murmur2 of Java's `Utils.murmur2` and `toPositive`, crc32 of librdkafka's `rd_crc32`, fnv1a of
    sarama's `hashPartitioner`, whose remainder has the sign of the hash and then loses it.
    """
    if partitioner == "crc32":
        return zlib.crc32(key) % partitions
    if partitioner == "fnv1a":
        hashed = 2166136261
        for byte in key:
            hashed = (hashed ^ byte) * 16777619 % 2**32
        signed = hashed - 2**32 if hashed >= 2**31 else hashed
        return int(abs(math.fmod(signed, partitions)))
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * 0x5BD1E995 % 2**32
        word = (word ^ word >> 24) * 0x5BD1E995 % 2**32
        hashed = hashed * 0x5BD1E995 % 2**32 ^ word
    if key[whole:]:
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * 0x5BD1E995 % 2**32
    hashed = (hashed ^ hashed >> 13) * 0x5BD1E995 % 2**32
    return ((hashed ^ hashed >> 15) & 0x7FFFFFFF) % partitions
