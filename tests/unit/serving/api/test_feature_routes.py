"""A request of a feature route, as ASGI has it: bodies that come late, queries and forms."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from typing import Any

import pytest
from backports import zstd

from serving.api.admission import Admission
from serving.api.answering import Answered, Asking
from serving.api.deadlines import Deadline, Deadlines
from serving.api.exchanges import EXCHANGE
from serving.api.feature_routes import Bounds, Content, FeatureRoute, feature_routes
from serving.api.forms import Form
from serving.metrics import Metrics
from serving.stores.fallback import LONGEST_SECONDS
from serving.stores.waiting import waited_for
from tests.support.raw_http import answers, exchange, listening


def bounds(most: int = 10, default_ms: int = 60_000) -> Bounds:
    """The bounds of a server of its own."""
    return Admission(most), Deadlines(default_ms)


BODY = {"type": "http.request", "body": b"{}", "more_body": False}


async def call(app: FeatureRoute, *messages: dict[str, Any], **scope: Any) -> tuple[int, Any]:
    """The status and the body of an answer; after `messages` nothing more comes."""
    sent, coming = [], list(messages)

    async def receive() -> Any:
        if coming:
            return coming.pop(0)
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"type": "http", "method": "POST", "query_string": b"", "headers": [], **scope}
    async with asyncio.timeout(5):
        await app(given, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def echo(scope: Any, body: bytes, deadline: Deadline) -> Content:
    return body, b"text/plain", ()


@pytest.mark.parametrize(
    "messages",
    [(), ({"type": "http.request", "body": b"{", "more_body": True},)],
    ids=["nothing but the head", "a part"],
)
def test_a_body_that_does_not_come_is_not_waited_for(messages: Any) -> None:
    metrics = Metrics(list)
    route = FeatureRoute("/a", echo, metrics, bounds(), body_seconds=0.05)
    status, body = asyncio.run(call(route, *messages))
    assert status == 503
    assert "did not come within 0.05 s" in json.loads(body)["detail"]
    assert b'tickwell_requests_total{route="/a",status="503"} 1.0' in metrics.text()


def test_a_body_in_parts_and_one_in_one() -> None:
    route = FeatureRoute("/a", echo, Metrics(list), bounds())
    parts = [{"type": "http.request", "body": b, "more_body": b != b"c"} for b in (b"a", b"", b"c")]
    assert asyncio.run(call(route, *parts)) == (200, b"ac")
    assert asyncio.run(call(route, BODY)) == (200, b"{}")
    assert asyncio.run(call(route, BODY, extensions=None)) == (200, b"{}")


class Answers:
    """Says what it is asked for."""

    async def one(self, body: bytes, asking: Asking) -> Answered:
        return b"one", ()

    async def many(self, body: bytes, form: Form, asking: Asking) -> Answered:
        return form.value.encode(), ()


ARROW = b"application/vnd.apache.arrow.stream"


@pytest.mark.parametrize(
    ("query", "accept", "form"),
    [
        (b"", b"*/*", b"objects"),
        (b"compact", b"application/json", b"compact"),
        (b"", ARROW, b"arrow"),
        (b"", b"text/html, " + ARROW.upper() + b";q=0.5", b"arrow"),
        (b"", ARROW + b";q=0, */*", b"objects"),
        (b"compact", ARROW + b" ; q=0.0", b"compact"),
        (b"", ARROW + b"s", b"objects"),
    ],
)
def test_the_form_that_is_asked_for(query: bytes, accept: bytes, form: bytes) -> None:
    answers: Any = Answers()
    _, batch = feature_routes(answers, Metrics(list), bounds())
    headers = [(b"host", b"a"), (b"accept", accept)]
    found = asyncio.run(call(batch, BODY, query_string=query, headers=headers))
    assert found == (200, form)


@pytest.mark.parametrize("query", [b"compact=false", b"&", b"compct", b"\xff", b"a" * 60_000])
def test_what_a_route_does_not_take_is_refused(query: bytes) -> None:
    answers: Any = Answers()
    for route in feature_routes(answers, Metrics(list), bounds()):
        status, body = asyncio.run(call(route, BODY, query_string=query))
        assert (status, b"this route takes" in body) == (422, True)


LARGE = b"[" + b"1," * 10_000 + b"1]"


@pytest.mark.parametrize("compress", [True, False])
def test_a_body_and_a_large_answer_may_be_compressed(compress: bool) -> None:
    async def answer(scope: Any, body: bytes, deadline: Deadline) -> Content:
        return body, b"application/json", ()

    route = FeatureRoute("/a", answer, Metrics(list), bounds(), compress=compress)

    def request(body: bytes) -> bytes:
        coded = gzip.compress(body)
        head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nAccept-Encoding: zstd\r\n"
        return head + b"Content-Length: %d\r\n\r\n" % len(coded) + coded

    async def asked() -> bytes:
        async with listening(route) as address:
            last = (
                b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]"
            )
            return await exchange(address, request(LARGE), request(b"[1]"), last)

    received = asyncio.run(asked())
    large, small, last = answers(received)
    assert (small.body, last.body) == (b"[1]", b"[]")
    if compress:
        assert zstd.decompress(large.body) == LARGE
        assert len(large.body) < 1_000
    else:
        assert large.body == LARGE
    heads = received.split(b"\r\n\r\n")[0]
    assert (b"content-encoding: zstd" in heads) is compress
    assert (b"vary: accept-encoding" in heads) is compress


def test_what_is_too_large_once_it_is_decoded_is_refused() -> None:
    body = {"type": "http.request", "body": gzip.compress(bytes(300_000)), "more_body": False}
    headers = [(b"content-encoding", b"gzip")]
    route = FeatureRoute("/a", echo, Metrics(list), bounds())
    status, answer = asyncio.run(call(route, body, headers=headers))
    assert (status, json.loads(answer)["title"]) == (413, "Too large")


# ---------------------------------------------------------------- deadlines and bounds


class Whole:
    """An exchange whose body is there, and which leaves the answer to messages."""

    began: float | None = None

    def whole_body(self) -> bytes:
        return b"{}"

    def answer(self, head: bytes, content: bytes) -> bool:
        return False


WHOLE = {EXCHANGE: Whole()}


async def for_ever(scope: Any, body: bytes, deadline: Deadline) -> Content:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def for_a_store(scope: Any, body: bytes, deadline: Deadline) -> Content:
    return await waited_for("Redis", for_ever(scope, body, deadline))


def test_what_is_not_answered_by_the_deadline_says_which_store_was_waited_for() -> None:
    for answer, store in ((for_ever, None), (for_a_store, "Redis")):
        metrics = Metrics(list)
        route = FeatureRoute("/a", answer, metrics, bounds())
        headers = [(b"host", b"a"), (b"x-deadline-ms", b"20")]
        status, body = asyncio.run(call(route, BODY, headers=headers))
        problem = json.loads(body)
        assert (status, problem["title"]) == (503, "Not in time")
        assert (problem["deadline_ms"], problem.get("waited_for")) == (20, store)
        assert b'tickwell_requests_total{route="/a",status="503"} 1.0' in metrics.text()
    route = FeatureRoute("/a", for_a_store, Metrics(list), bounds(default_ms=20))
    assert asyncio.run(call(route, BODY))[0] == 503


def test_a_body_that_comes_slowly_takes_of_the_deadline() -> None:
    route = FeatureRoute("/a", echo, Metrics(list), bounds())
    headers = [(b"x-deadline-ms", b"20")]
    status, body = asyncio.run(call(route, headers=headers))
    assert (status, "within 0.02 s" in json.loads(body)["detail"]) == (503, True)


@pytest.mark.parametrize(
    "value", [b"", b"0", b"-1", b"1.5", b"1e3", b"60001", b"999999999999", b" 5", b"\xff", b"\xb2"]
)
def test_a_deadline_that_is_none_is_refused(value: bytes) -> None:
    route = FeatureRoute("/a", echo, Metrics(list), bounds())
    status, body = asyncio.run(call(route, BODY, headers=[(b"x-deadline-ms", value)]))
    assert (status, "X-Deadline-Ms" in json.loads(body)["detail"]) == (422, True)


def test_no_timer_is_made_where_the_stores_answer_before() -> None:
    async def timers(scope: Any, body: bytes, deadline: Deadline) -> Content:
        loop: Any = asyncio.get_running_loop()
        made.append(sum(not one.cancelled() for one in vars(loop)["_scheduled"]))
        return body, b"text/plain", ()

    made: list[int] = []
    long, short = (str(int(LONGEST_SECONDS * 1_000) + more).encode() for more in (0, -1))
    for value in (long, short):
        route = FeatureRoute("/a", timers, Metrics(list), bounds())
        asyncio.run(call(route, extensions=WHOLE, headers=[(b"x-deadline-ms", value)]))
    assert made[1] == made[0] + 1


def test_the_time_of_a_request_began_when_it_came() -> None:
    """Whoever tried to answer it before has had some of it."""

    async def never(scope: Any, body: bytes, deadline: Deadline) -> Content:
        return await asyncio.get_running_loop().create_future()

    async def asked() -> tuple[int, bytes]:
        late = Whole()
        late.began = asyncio.get_running_loop().time() - 61.0
        route = FeatureRoute("/a", never, Metrics(list), bounds())
        headers = [(b"x-deadline-ms", b"60000")]
        return await call(route, extensions={EXCHANGE: late}, headers=headers)

    status, body = asyncio.run(asked())
    assert (status, json.loads(body)["deadline_ms"]) == (503, 60_000)


@pytest.mark.timeout(60)
def test_more_requests_than_the_bound_are_refused_and_leave_no_trace() -> None:
    """Those whose bodies do not come take no place from those that are there."""

    async def ask() -> None:
        admission, gate = Admission(3), asyncio.Event()

        async def wait(scope: Any, body: bytes, deadline: Deadline) -> Content:
            await gate.wait()
            return body, b"text/plain", ()

        route = FeatureRoute("/a", wait, Metrics(list), (admission, Deadlines(60_000)))
        slow = [asyncio.create_task(call(route)) for _ in range(3)]
        waiting = [asyncio.create_task(call(route, extensions=WHOLE)) for _ in range(3)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert (admission.answering, admission.receiving) == (3, 3)
        for refused in (call(route), call(route, extensions=WHOLE)):
            status, body = await refused
            assert (status, json.loads(body)["title"]) == (503, "Too many requests at once")
        assert admission.refused == 2
        gate.set()
        assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
        status, _ = await call(route, BODY)
        assert status == 503
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert (admission.answering, admission.receiving) == (0, 0)
        assert (await call(route, BODY))[0] == 200

    asyncio.run(ask())


@pytest.mark.timeout(60)
def test_bodies_that_come_at_once_are_no_more_than_the_bound() -> None:
    """While they are awaited none of them counts as one that is answered."""

    async def ask() -> None:
        admission, gate = Admission(2), asyncio.Event()
        most = 0

        async def wait(scope: Any, body: bytes, deadline: Deadline) -> Content:
            nonlocal most
            most = max(most, admission.answering)
            await gate.wait()
            return body, b"text/plain", ()

        route = FeatureRoute("/a", wait, Metrics(list), (admission, Deadlines(60_000)))

        async def asked() -> int:
            coming, sent = asyncio.Event(), []
            bodies.append(coming)

            async def receive() -> Any:
                await coming.wait()
                return BODY

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "query_string": b"", "headers": []}
            await route(scope, receive, send)
            status: int = sent[0]["status"]
            return status

        bodies: list[asyncio.Event] = []
        first = [asyncio.create_task(asked()) for _ in range(2)]
        await asyncio.sleep(0)
        whole = asyncio.create_task(call(route, extensions=WHOLE))
        await asyncio.sleep(0)
        for coming in bodies:
            coming.set()
        for _ in range(5):
            await asyncio.sleep(0)
        gate.set()
        assert sorted(await asyncio.gather(*first)) == [200, 503]
        assert (await whole)[0] == 200
        assert (most, admission.answering) == (2, 0)

    asyncio.run(ask())


@pytest.mark.timeout(60)
def test_bodies_in_hand_are_bounded_in_bytes() -> None:
    """Those that are answered as they were decoded; those that are still to come by themselves."""

    async def ask() -> None:
        admission, gate = Admission(100, most_bytes=10_000), asyncio.Event()

        async def wait(scope: Any, body: bytes, deadline: Deadline) -> Content:
            await gate.wait()
            return b"%d" % len(body), b"text/plain", ()

        async def refused(*calls: Any) -> None:
            for call in calls:
                status, body = await call
                assert (status, json.loads(body)["title"]) == (503, "Too many requests at once")

        async def in_hand() -> tuple[int, int]:
            for _ in range(5):
                await asyncio.sleep(0)
            return admission.answering_bytes, admission.receiving_bytes

        route = FeatureRoute("/a", wait, Metrics(list), (admission, Deadlines(60_000)))
        piece = {"type": "http.request", "body": b"x" * 4_000, "more_body": True}
        slow = [asyncio.create_task(call(route, piece)) for _ in range(2)]
        assert await in_hand() == (0, 8_000)
        await refused(call(route, piece, BODY))  # nobody else's body is awaited to its end
        assert await in_hand() == (0, 8_000)
        packed = {**BODY, "body": gzip.compress(b"x" * 100_000)}
        gzipped = [(b"content-encoding", b"gzip")]
        large = asyncio.create_task(call(route, packed, headers=gzipped))
        assert await in_hand() == (100_000, 8_000)
        await refused(call(route), call(route, BODY), call(route, extensions=WHOLE))
        gate.set()
        assert await large == (200, b"100000")
        assert (await call(route, extensions=WHOLE))[0] == 200  # however slow the others are
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert await in_hand() == (0, 0)
        assert (await call(route, piece, BODY))[0] == 200
        assert (await call(route, packed))[0] == 200
        assert await in_hand() == (0, 0)

    asyncio.run(ask())


def test_an_answer_that_is_compressed_is_one_that_is_in_hand() -> None:
    """A large one goes to a thread, in which many would wait, with nobody counting them."""

    async def ask() -> list[int]:
        admission, found = Admission(1), []

        async def large(scope: Any, body: bytes, deadline: Deadline) -> Content:
            return os.urandom(4_000_000), b"text/plain", ()

        bounds_of_one = admission, Deadlines(60_000)
        route = FeatureRoute("/a", large, Metrics(list), bounds_of_one, compress=True)
        accepting = [(b"accept-encoding", b"gzip")]
        first = asyncio.create_task(call(route, extensions=WHOLE, headers=accepting))
        await asyncio.sleep(0.01)
        found.append((await call(route, extensions=WHOLE))[0])
        found.append((await first)[0])
        return found

    assert asyncio.run(ask()) == [503, 200]
