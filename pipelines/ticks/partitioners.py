"""Which partition a key belongs in, as the clients of Kafka choose it.

    murmur2    the Java client, aiokafka, kafka-python, kafkajs, franz-go: murmur2, without its sign
    crc32      librdkafka's own choice, and so that of all clients built on it: zlib's CRC-32
    fnv1a      sarama: FNV-1a as a signed integer, and the remainder without its sign

`find_fitting` is the compiled form of the same.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import numpy as np
from aiokafka.partitioner import murmur2

from pipelines.runtime.machine_code import compiled
from registry.definitions import Partitioner

POSITIVE = 0x7FFFFFFF
FNV_OFFSET, FNV_PRIME = 0x811C9DC5, 0x01000193


def _fnv1a(key: bytes) -> int:
    hashed = FNV_OFFSET
    for byte in key:
        hashed = (hashed ^ byte) * FNV_PRIME & 0xFFFFFFFF
    return min(hashed, 2**32 - hashed)  # of the signed number, what it is without its sign


HASHES: dict[Partitioner, Callable[[bytes], int]] = {
    "murmur2": lambda key: murmur2(key) & POSITIVE,
    "crc32": crc32,
    "fnv1a": _fnv1a,
}
"""A partition is the remainder of the hash of a key and the number of partitions."""

CLIENTS = {
    "murmur2": "the Java client's",
    "crc32": "librdkafka's default",
    "fnv1a": "sarama's",
}


def has_no_partition(partitioner: Partitioner, key: bytes | None, partitions: int | None) -> bool:
    """Whether producers put messages of this key wherever they like.

    Where the partitioner is not known, a topic of one partition leaves them no choice. Without the
    number of `partitions` that is not judged.
    """
    if partitioner == "any":
        return not key and partitions is not None and partitions > 1
    return key is None or (partitioner == "crc32" and key == b"")  # librdkafka takes it for none


def wrong_partition(
    partitioner: Partitioner, key: bytes | None, partition: int, partitions: int
) -> str | None:
    """Why a message of this key does not belong in its partition; None if it does."""
    if partitioner == "any" or key is None:
        return None
    right = HASHES[partitioner](key) % partitions
    if right == partition:
        return None
    seeming = [
        f"{name} ({CLIENTS[name]})"
        for name, hashed in HASHES.items()
        if hashed(key) % partitions == partition
    ]
    detail = (
        f"key {key[:40]!r} came from partition {partition}, and by {partitioner} it belongs in "
        f"{right} of {partitions}: "
    )
    if not seeming:
        return detail + "no partitioner that is known puts it there"
    return detail + (
        f"its producer seems to use {' or '.join(seeming)}; set the producer's partitioner to "
        f"{partitioner} (in librdkafka partitioner={LIBRDKAFKA[partitioner]}), or declare the "
        "source's to be the producer's"
    )


LIBRDKAFKA = {"murmur2": "murmur2_random", "crc32": "consistent_random", "fnv1a": "fnv1a_random"}

NOT_JUDGED, MURMUR2, CRC32, FNV1A = range(4)
CODES: dict[Partitioner, int] = {
    "any": NOT_JUDGED,
    "murmur2": MURMUR2,
    "crc32": CRC32,
    "fnv1a": FNV1A,
}
"""The partitioners as compiled code knows them."""

M32 = np.uint64(0xFFFFFFFF)
POSITIVE_64 = np.uint64(POSITIVE)
MURMUR_SEED, MURMUR_FACTOR = np.uint64(0x9747B28C), np.uint64(0x5BD1E995)
FNV_OFFSET_64, FNV_PRIME_64 = np.uint64(FNV_OFFSET), np.uint64(FNV_PRIME)
LOW_8, SIGN, TWO_32 = np.uint64(0xFF), np.uint64(1 << 31), np.uint64(1 << 32)
U8, U13, U15, U16, U24 = (np.uint64(bits) for bits in (8, 13, 15, 16, 24))
CRC_TABLE = np.array([crc32(bytes([n ^ 0xFF])) ^ 0xFF000000 for n in range(256)], np.uint64)
"""The change that each byte makes to a CRC-32, taken from the checksums of single bytes."""


@compiled()
def _murmur2(data, start, end):  # type: ignore[no-untyped-def]
    hashed = MURMUR_SEED ^ np.uint64(end - start)
    position = start
    while end - position >= 4:
        word = (
            np.uint64(data[position])
            | np.uint64(data[position + 1]) << U8
            | np.uint64(data[position + 2]) << U16
            | np.uint64(data[position + 3]) << U24
        )
        word = word * MURMUR_FACTOR & M32
        word = (word ^ word >> U24) * MURMUR_FACTOR & M32
        hashed = (hashed * MURMUR_FACTOR & M32) ^ word
        position += 4
    rest = end - position
    if rest == 3:
        hashed ^= np.uint64(data[position + 2]) << U16
    if rest >= 2:
        hashed ^= np.uint64(data[position + 1]) << U8
    if rest >= 1:
        hashed = (hashed ^ np.uint64(data[position])) * MURMUR_FACTOR & M32
    hashed = (hashed ^ hashed >> U13) * MURMUR_FACTOR & M32
    return (hashed ^ hashed >> U15) & POSITIVE_64


@compiled()
def _crc32(data, start, end):  # type: ignore[no-untyped-def]
    hashed = M32
    for position in range(start, end):
        hashed = CRC_TABLE[np.int64((hashed ^ np.uint64(data[position])) & LOW_8)] ^ hashed >> U8
    return hashed ^ M32


@compiled()
def _fnv1a_hash(data, start, end):  # type: ignore[no-untyped-def]
    hashed = FNV_OFFSET_64
    for position in range(start, end):
        hashed = (hashed ^ np.uint64(data[position])) * FNV_PRIME_64 & M32
    return hashed if hashed < SIGN else TWO_32 - hashed


@compiled()
def _partition(data, start, end, code, partitions):  # type: ignore[no-untyped-def]
    if code == MURMUR2:
        hashed = _murmur2(data, start, end)
    elif code == CRC32:
        hashed = _crc32(data, start, end)
    else:
        hashed = _fnv1a_hash(data, start, end)
    return np.int64(np.uint32(hashed) % np.uint32(partitions))


@compiled("void(uint8[::1], int64[:,::1], int64, int64, int64, boolean[::1])", nogil=False)
def find_fitting(data, keys, code, partitions, partition, fits):  # type: ignore[no-untyped-def]
    """By message: whether its key has a partition, and it is in that one of so many.

    `keys` are begins and ends in `data`, below 0 for none; `code` is of `CODES`. With 0 partitions,
    which one a key is in is not judged. With one, each message is in it whatever it has for a key,
    unless the partitioner needs one (`has_no_partition`).
    """
    for message in range(keys.shape[0]):
        start, end = keys[message, 0], keys[message, 1]
        if code == NOT_JUDGED:
            fits[message] = partitions <= 1 or end > start
        elif start < 0 or (code == CRC32 and start == end):
            fits[message] = False
        else:
            fits[message] = (
                partitions == 0 or _partition(data, start, end, code, partitions) == partition
            )
