"""Content codings (RFC 9110, 8.4): bodies that come compressed, and answers that go so.

A body is decoded no further than its limit, whatever it would become: what a few bytes of it may
grow to is never in memory. An answer is compressed by what its client accepts, and only a large
one. Compressing 120 KB takes about as long as answering them, so what is larger is compressed by
another thread: the library holds no lock meanwhile, and other requests go on.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from backports import zstd

from serving.errors import InvalidRequest, TooLarge, UnsupportedCoding

Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case, and values."""

ACCEPT_ENCODING = b"accept-encoding"
CONTENT_ENCODING = b"content-encoding"
VARY = (b"vary", b"accept-encoding")

CODINGS = ("zstd", "gzip")
"""What is read and written. Of two that a client likes as well the first is taken: it takes less
time, and makes less of the same content."""

ALIASES = {"x-gzip": "gzip"}

LEAST_BYTES = 8_192
"""Bytes of an answer above which it is compressed. A smaller one is a few packets at most."""

IN_PLACE_BYTES = 131_072
"""Bytes of an answer up to which it is compressed where it was made; to hand it to a thread and
back takes longer than a small one does."""

LEVEL = 1
"""Of zlib and of zstd: higher ones take several times as long for a tenth less."""

GZIP_WINDOW = zlib.MAX_WBITS | 16
"""What tells zlib of gzip's head and tail."""

ZSTD_WINDOW_LOG = 23
"""The window that a decoder of this coding must support, 8 MiB (RFC 9659), and no larger one."""

_weight = re.compile(r"\s*(?:q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?\s*").fullmatch


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Content(NamedTuple):
    """What is sent of an answer, and the headers that say how it is coded."""

    body: bytes
    headers: list[tuple[bytes, bytes]]


def decoded(headers: Headers, body: bytes, most: int) -> bytes:
    """The content of a request, of at most `most` bytes, as it was before it was coded.

    Raises `UnsupportedCoding`, `TooLarge`, and `InvalidRequest` for what is not in its coding.
    """
    named = [value for name, value in headers if name == CONTENT_ENCODING]
    if not named:
        return body
    coding = b", ".join(named).decode("latin-1").strip().lower()
    coding = ALIASES.get(coding, coding)
    if coding in ("", "identity"):
        return body
    if coding not in CODINGS:
        raise UnsupportedCoding(
            f"a body in the content coding {coding[:40]!r} is not read: send it in one of "
            f"{', '.join(CODINGS)}, or as it is"
        )
    decoder = _decoder(coding)
    try:
        content = decoder.decompress(body, most + 1)
    except (zlib.error, zstd.ZstdError) as error:
        raise InvalidRequest(f"the body is not {coding}, as its head says: {error}") from None
    if len(content) > most:
        raise TooLarge(f"a body has at most {most} bytes once it is decoded: send several requests")
    if not decoder.eof or decoder.unused_data:
        raise InvalidRequest(f"the body is not one whole piece of {coding}: send all of one")
    return content


async def coded(headers: Headers, content: bytes) -> Content:
    """An answer in the coding that a client with these headers likes best, or as it is."""
    if len(content) <= LEAST_BYTES:
        return Content(content, [])
    coding = preferred(headers)
    if coding is None:
        return Content(content, [VARY])
    if len(content) <= IN_PLACE_BYTES:
        body = _encode(coding, content)
    else:
        body = await asyncio.to_thread(_encode, coding, content)
    return Content(body, [VARY, (CONTENT_ENCODING, coding.encode())])


def preferred(headers: Headers) -> str | None:
    """The coding that a client likes best, None where that is none.

    One without the header is sent what every client reads.
    """
    given = b",".join([value for name, value in headers if name == ACCEPT_ENCODING])
    weights: dict[str, float] = {}
    for part in given.decode("latin-1").lower().split(","):
        name, _, parameters = part.partition(";")
        coding, weight = name.strip(), _weight(parameters)
        if coding and weight:
            weights[ALIASES.get(coding, coding)] = float(weight[1] or 1)
    best = max(CODINGS, key=lambda coding: _weight_of(weights, coding))
    weight_of_best = _weight_of(weights, best)
    if weight_of_best == 0 or weights.get("identity", 0) > weight_of_best:
        return None
    return best


def _weight_of(weights: Mapping[str, float], coding: str) -> float:
    return weights.get(coding, weights.get("*", 0.0))


def _decoder(coding: str) -> _Decoder:
    if coding == "gzip":
        return zlib.decompressobj(GZIP_WINDOW)
    return zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    )


def _encode(coding: str, content: bytes) -> bytes:
    if coding == "gzip":
        return zlib.compress(content, LEVEL, GZIP_WINDOW)
    return zstd.compress(content, LEVEL)
