"""The head of a request, its request line and headers: what is refused in it, and its rewriting."""

from __future__ import annotations

from collections.abc import Sequence

import httptools

from serving.errors import HeadTooLarge, MalformedRequest

MAX_HEAD_BYTES = 65_536
"""Bytes of a request's target and headers. Its trailers may have as many again."""

MAX_HEADERS = 100
"""Number of headers. A header of 4 bytes takes about 150 as Python's objects, so that without this
bound 64 KiB of a head would become more than 2 MiB of memory."""

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""

UPGRADE = (b"upgrade", b"http2-settings")
"""Headers with which a client asks for another protocol."""


def too_large() -> HeadTooLarge:
    """What a client with a larger head is told."""
    return HeadTooLarge(
        f"the head of a request has at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers, and "
        "its trailers have no more: send less in the target and the headers, and data in the body"
    )


def check_size(target: bytes, headers: Headers) -> None:
    """Raises `HeadTooLarge`."""
    size = len(target) + sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEAD_BYTES:
        raise too_large()


def with_path(target: bytes) -> bytes:
    """A target that is no path; `/` where it is a URL without one (RFC 9112, 3.2.1).

    Raises `MalformedRequest` for what is no target.
    """
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise MalformedRequest(
            "the target of the request is neither a path nor a URL: ask for a path, as in "
            "POST /features/online, with everything but ASCII percent-encoded"
        ) from None
    if url.path is not None:
        return target
    return b"/?" + url.query if url.query else b"/"


def without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The same head without the wish for another protocol."""
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    for name, value in headers:
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            value = b", ".join(token for token in tokens if token.lower() not in UPGRADE)
        if name not in UPGRADE:
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])
