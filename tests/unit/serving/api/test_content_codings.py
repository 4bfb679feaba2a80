"""Bodies that come compressed are bounded, and answers go so to whom accepts it."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.api.compressing import Compressing
from serving.api.content_codings import IN_PLACE_BYTES, LEAST_BYTES, coded, decoded, preferred
from serving.errors import InvalidRequest, TooLarge, UnsupportedCoding

COMPRESS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "zstd": zstd.compress}
DECOMPRESS = {"gzip": gzip.decompress, "zstd": zstd.decompress}
MOST = 1_000


def headers(coding: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"a"), (b"content-encoding", coding.encode())]


@given(st.binary(max_size=MOST), st.sampled_from([*COMPRESS, "GZIP", " zstd "]))
def test_a_body_is_decoded(content: bytes, coding: str) -> None:
    body = COMPRESS[coding.strip().lower()](content)
    assert decoded(headers(coding), body, MOST) == content


@given(st.binary(max_size=MOST))
def test_what_is_not_coded_is_left(content: bytes) -> None:
    assert decoded([(b"accept-encoding", b"gzip")], content, MOST) is content
    assert decoded(headers("identity"), content, MOST) is content


@given(st.binary(max_size=60), st.sampled_from(["gzip", "zstd"]), st.integers(0, 59))
def test_what_is_in_no_coding_is_a_mistake_of_the_client(
    content: bytes, coding: str, cut: int
) -> None:
    body = COMPRESS[coding](content)
    for wrong in (content, body[: cut % len(body)], body + b"x", body * 2):
        with pytest.raises(InvalidRequest):
            decoded(headers(coding), wrong, MOST)


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "zstd,gzip", "x" * 1_000, "*"])
def test_other_codings_are_refused(coding: str) -> None:
    with pytest.raises(UnsupportedCoding, match="zstd, gzip") as refused:
        decoded(headers(coding), b"", MOST)
    assert len(refused.value.detail) < 300
    with pytest.raises(UnsupportedCoding):
        decoded(headers("gzip") * 2, b"", MOST)


def widest(content: bytes) -> bytes:
    """Zstandard whose decoder is told to keep 128 MiB of what came before."""
    options = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(content) + compressor.flush()


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_takes_no_memory(coding: str) -> None:
    bomb = COMPRESS[coding](bytes(300_000_000))
    tracemalloc.start()
    with pytest.raises(TooLarge, match="at most 262144 bytes"):
        decoded(headers(coding), bomb, 262_144)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_window_that_no_client_needs_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        decoded(headers("zstd"), widest(bytes(100)), MOST)


def test_the_limit_itself_is_no_mistake() -> None:
    for coding in ("gzip", "zstd"):
        body = COMPRESS[coding](bytes(MOST))
        assert decoded(headers(coding), body, MOST) == bytes(MOST)
        with pytest.raises(TooLarge):
            decoded(headers(coding), body, MOST - 1)


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ([], None),
        ([""], None),
        (["gzip"], "gzip"),
        (["GZip, Deflate"], "gzip"),
        (["x-gzip"], "gzip"),
        (["gzip, deflate, br, zstd"], "zstd"),
        (["gzip", "zstd"], "zstd"),
        (["zstd;q=0.5, gzip"], "gzip"),
        (["zstd;q=0.5, gzip;q=0.5"], "zstd"),
        (["zstd;q=0, gzip;q=0.001"], "gzip"),
        (["gzip;q=0"], None),
        (["gzip ; q=0.000"], None),
        (["*"], "zstd"),
        (["*;q=0"], None),
        (["zstd;q=0, *"], "gzip"),
        (["gzip;q=0.5, identity"], None),
        (["gzip, identity;q=0.5"], "gzip"),
        (["identity;q=0"], None),
        (["br;q=1.0, gzip;q=0.8, *;q=0.1"], "gzip"),
        (["gzip;q=2"], None),
        (["gzip;q=zero"], None),
        ([";;,,;q=1,"], None),
    ],
)
def test_the_coding_that_a_client_likes_best(accepted: list[str], expected: str | None) -> None:
    """By RFC 9110, 12.5.3; what has no form is as if it were not there."""
    assert preferred([(b"accept-encoding", one.encode()) for one in accepted]) == expected


@pytest.mark.parametrize("size", [0, LEAST_BYTES, LEAST_BYTES + 1, IN_PLACE_BYTES + 1])
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_an_answer_above_the_bound_is_compressed(coding: str, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"a" * (size % 256)
    body, added = asyncio.run(coded([(b"accept-encoding", coding.encode())], content))
    if size <= LEAST_BYTES:
        assert (body, added) == (content, [])
    else:
        assert DECOMPRESS[coding](body) == content
        assert len(body) < size / 2
        assert dict(added) == {b"vary": b"accept-encoding", b"content-encoding": coding.encode()}


def test_who_accepts_none_is_told_that_others_get_another() -> None:
    content = bytes(LEAST_BYTES + 1)
    assert asyncio.run(coded([], content)) == (content, [(b"vary", b"accept-encoding")])


def test_the_answers_of_other_routes_are_compressed() -> None:
    large = json.dumps(list(range(5_000))).encode()

    async def answer(request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind == "parts":
            return StreamingResponse(iter([large, large]), media_type="application/json")
        content = large if kind != "small" else b"[]"
        return Response(
            content, media_type="image/png" if kind == "picture" else "application/json"
        )

    app = Compressing(Starlette(routes=[Route("/{kind}", answer)]))
    client = TestClient(app, headers={"accept-encoding": "gzip"})
    found: dict[str, Any] = {kind: client.get(f"/{kind}") for kind in ("large", "small", "parts")}
    found["picture"] = client.get("/picture")
    assert found["large"].headers["content-encoding"] == "gzip"
    assert found["large"].headers["vary"] == "accept-encoding"
    assert int(found["large"].headers["content-length"]) < len(large) / 2
    assert (found["large"].content, found["small"].content) == (large, b"[]")
    assert (found["parts"].content, found["picture"].content) == (large * 2, large)
    assert all(
        "content-encoding" not in found[kind].headers for kind in ("small", "parts", "picture")
    )
    head = client.head("/large")
    assert head.headers["content-length"] == found["large"].headers["content-length"]


def test_gzip_is_what_the_standard_says() -> None:
    """Deflate within the head and tail of RFC 1952, and not those of zlib."""
    body, _ = asyncio.run(coded([(b"accept-encoding", b"gzip")], bytes(10_000)))
    assert zlib.decompress(body, zlib.MAX_WBITS | 16) == bytes(10_000)
