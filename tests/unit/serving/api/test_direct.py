"""What is answered directly is answered as by the application, to the byte."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from registry.api_keys import ApiKey
from registry.formats import api_key
from serving.api.direct import ONE
from serving.api.direct_exchange import DirectExchange
from serving.stores.heard_rows import Judge
from serving.stores.row_batch import Hearer, Values
from serving.stores.row_store import UNAVAILABLE
from serving.watch.workers import Lag
from tests.support.direct_server import (
    Server,
    batch,
    complete,
    counted,
    on_time,
    request,
    rows_of_now,
    same,
    totals,
)
from tests.support.raw_http import answers, listening, run

CLOSE = b"Connection: close"
PLAIN, LAST = request(), request(CLOSE)
NAMED = request(b"X-Request-Id: mine")


@pytest.mark.parametrize(
    ("packets", "direct"),
    [
        ((PLAIN, PLAIN, PLAIN, LAST), 2),
        ((b"\r\n", PLAIN, b"\r\n", PLAIN, LAST), 1),
        ((NAMED, NAMED.replace(b"mine", b"yours"), LAST), 1),
        ((NAMED, NAMED.replace(b"mine", b"no good"), LAST), 0),
        ((PLAIN, PLAIN[:50], PLAIN[50:], PLAIN, LAST), 1),
        ((PLAIN, PLAIN + PLAIN, LAST), 0),
        ((PLAIN, PLAIN + PLAIN[:30], PLAIN[30:], LAST), 0),
        ((PLAIN + PLAIN, PLAIN, PLAIN, LAST), 1),
        ((request(symbol="B"), request(symbol="B"), LAST), 1),
        ((request(symbol="C"), request(symbol="C"), LAST), 1),
        ((PLAIN, request(symbol="D"), request(symbol="D"), LAST), 1),
        ((request(b"Origin: http://a"),) * 3 + (LAST,), 0),
        ((request(b"Expect: 100-continue"),) * 2 + (LAST,), 0),
        ((request(b"X-Deadline-Ms: 5000"),) * 3 + (LAST,), 2),
        ((request(b"X-Deadline-Ms: 500"),) * 3 + (LAST,), 2),
        ((request(b"X-Deadline-Ms: never"),) * 3 + (LAST,), 0),
        ((request(b"X-Consumer: me"),) * 3 + (LAST,), 2),
        ((request(b"X-Consumer: n o"),) * 3 + (LAST,), 0),
        ((PLAIN.replace(b"1.1", b"1.0"),) * 1 + (LAST,), 0),
        ((PLAIN.replace(b"online", b"online?a"),) * 2 + (LAST,), 0),
        ((request(features=["nonsense"]),) * 2 + (LAST,), 0),
        ((batch(), batch(), batch(), LAST), 1),
        ((batch(symbols="A" * 20),) * 4 + (LAST,), 2),
        ((batch(symbols="ABCD" * 5),) * 4 + (LAST,), 2),
        ((batch(query=b"?compact"),) * 4 + (LAST,), 2),
        ((batch(query=b"?compact"), batch(), batch(), batch(query=b"?compact"), LAST), 2),
        ((batch(query=b"?nonsense"),) * 4 + (LAST,), 0),
    ],
)
def test_answers_and_counts_are_the_applications(packets: tuple[bytes, ...], direct: int) -> None:
    rows = rows_of_now()
    ordinary, server = Server(rows, is_direct=False), Server(rows)
    assert same(server.ask(*packets)) == same(ordinary.ask(*packets))
    assert server.store.answered == direct
    assert server.served == ordinary.served
    assert totals(server) == totals(ordinary)
    assert (server.admission.answering, server.admission.answering_bytes) == (0, 0)
    assert counted(server) == counted(ordinary)


def test_what_gets_late_is_lagging_from_then_on() -> None:
    server = Server(rows_of_now())
    told = [one.body for one in answers(server.ask(PLAIN, PLAIN, LAST))]
    assert [body.count(b'"ok"') for body in told] == [3, 3, 3]
    server.watch.lag = Lag([])
    told = [one.body for one in answers(server.ask(PLAIN, PLAIN, LAST))]
    assert [body.count(b'"lagging"') for body in told] == [3, 3, 3]
    assert server.store.answered == 1 + 2


def test_a_worker_that_catches_up_while_rows_are_read_does_not_make_them_fresh() -> None:
    server = Server(rows_of_now())
    server.watch.lag = Lag([])

    def hears(values: Values) -> Values:
        server.watch.lag = on_time(time.time() + 60)
        return values

    server.store.hears = hears
    told = [one.body for one in answers(server.ask(PLAIN, PLAIN, PLAIN, LAST))]
    assert [body.count(b'"lagging"') for body in told] == [3, 3, 0, 0]
    assert server.store.answered == 2


@pytest.mark.parametrize(
    "hears",
    [lambda values: UNAVAILABLE, lambda values: [[b"junk"] for _ in values], lambda values: []],
    ids=["no answer", "a damaged row", "nothing that can be understood"],
)
def test_what_cannot_be_answered_directly_is_answered(hears: Any) -> None:
    rows = rows_of_now()
    ordinary, server = Server(rows, is_direct=False), Server(rows)
    server.store.hears = hears
    packets = (PLAIN, PLAIN, PLAIN, LAST)
    assert same(server.ask(*packets)) == same(ordinary.ask(*packets))
    assert (server.store.heard, server.store.answered) == (2, 0)
    assert server.store.waited == ordinary.store.waited == 4
    assert server.served == ordinary.served
    assert totals(server) == totals(ordinary)


def test_a_store_that_must_be_waited_for_is() -> None:
    server = Server(rows_of_now())
    server.store.is_asked = False
    assert len(answers(server.ask(PLAIN, PLAIN, LAST))) == 3
    assert server.store.waited == 3


def test_a_deadline_ends_a_direct_answer_from_its_own_beginning() -> None:
    """Then the ordinary way says so at once; it would wait as long again, if it began anew."""
    hurried = request(b"X-Deadline-Ms: 100")

    async def asked(server: Server) -> tuple[float, bytes]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        received = await server.asked(hurried, hurried, request(b"X-Deadline-Ms: 100", CLOSE))
        return loop.time() - began, received

    server = Server(rows_of_now())

    async def never(wanted: Any) -> Any:
        await asyncio.Event().wait()

    def hears(values: Values) -> None:
        server.store.named_rows = never  # type: ignore[method-assign]

    server.store.hears = hears
    _, received = run(asked(server), uvloop.new_event_loop)
    first, late, *_ = answers(received)
    assert (first.status, late.status) == (200, 503)
    assert json.loads(late.body)["deadline_ms"] == 100
    assert server.admission.answering == 0
    # the third is waited for directly, too, and the time of each is counted from its beginning
    assert server.metrics.total("tickwell_request_seconds_sum", route=ONE) >= 0.2


def test_a_deadline_is_that_of_its_request_whatever_came_behind_it() -> None:
    """The one behind it has its own time, from the moment at which it is begun."""
    server = Server(rows_of_now())

    async def asked() -> bytes:
        async with listening(server.app, proxy_headers=False) as address:
            reader, writer = await asyncio.open_connection(*address)
            hurried, next_one = (request(b"X-Deadline-Ms: %d" % ms) for ms in (400, 700))
            writer.write(hurried)
            received = await reader.read(65_536)
            server.store.hears = lambda values: None
            writer.write(hurried)
            while not server.store.heard:
                await asyncio.sleep(0.001)
            ordinary = server.store.named_rows

            async def late(wanted: Any) -> Any:
                server.store.named_rows = ordinary  # type: ignore[method-assign]
                await asyncio.sleep(0.2)  # in time, if it had its whole time again
                return await ordinary(wanted)

            server.store.named_rows = late  # type: ignore[method-assign]
            writer.write(next_one)
            while len(complete(received)) < 3:
                received += await asyncio.wait_for(reader.read(65_536), 10)
            writer.close()
            return received

    statuses = [one.status for one in answers(run(asked(), uvloop.new_event_loop))]
    assert statuses == [200, 503, 200]


def test_a_full_server_refuses() -> None:
    server = Server(rows_of_now())

    def hears(values: Values) -> Values:
        server.admission.most = 0
        return values

    server.store.hears = hears
    statuses = [one.status for one in answers(server.ask(PLAIN, PLAIN, PLAIN, LAST))]
    assert statuses == [200, 200, 503, 503]
    assert server.store.heard == 1


def test_a_key_that_is_revoked_is_refused_at_once() -> None:
    server = Server(rows_of_now(), needs_keys=True)
    text = api_key.make().encode()
    sha256 = api_key.digest(text)
    server.watch.keyring = {sha256: ApiKey(1, "a", sha256, ("read",), None)}
    keyed, last = (request(b"X-API-Key: " + text, *more) for more in ((), (CLOSE,)))

    def hears(values: Values) -> Values:
        server.watch.keyring = {}
        return values

    server.store.hears = hears
    statuses = [one.status for one in answers(server.ask(keyed, keyed, keyed, last))]
    assert statuses == [200, 200, 401, 401]
    assert server.store.answered == 1


def test_batches_are_left_to_who_compresses_them() -> None:
    """As a rule they are large: to ask for their rows here too would be for nothing."""
    server = Server(rows_of_now(), compress=True)
    assert len(answers(server.ask(batch(), batch(), batch(), LAST))) == 4
    assert (server.store.heard, server.store.waited) == (0, 4)


def test_an_idle_connection_keeps_nothing_of_its_last_request() -> None:
    class Home:
        scope = None
        flow = SimpleNamespace(write_paused=False)
        server_state = SimpleNamespace(default_headers=[])
        transport = SimpleNamespace(write_whole=lambda content: None)
        answered = 0

        def direct_is_answered(self) -> None:
            self.answered += 1

        def direct_goes_on(self, exchange: DirectExchange, began: float) -> None:
            raise AssertionError

    home = Home()
    exchange = DirectExchange(home, PLAIN, PLAIN[-10:], b"id", keep_alive=True)
    exchange.answer(b"{}", b"application/json")
    assert home.answered == 1
    assert (exchange.data, exchange.body) == (b"", b"")


def test_what_is_large_is_left_to_who_compresses_it() -> None:
    features = ["price_sma_5@1.0.0" if n else "price_sma_5" for n in range(2)]
    server = Server(rows_of_now(), compress=True)
    assert len(answers(server.ask(request(features=features), request(features=features), LAST)))
    assert server.store.answered == 1


def test_a_client_that_hangs_up_leaves_nothing_behind() -> None:
    server = Server(rows_of_now())
    held: list[Hearer] = []

    async def asked() -> None:
        async with listening(server.app, proxy_headers=False) as address:
            _, writer = await asyncio.open_connection(*address)
            writer.write(PLAIN)
            while not server.store.waited:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            ask = server.store.ask

            def kept(wanted: Any, hearer: Hearer) -> Judge | None:
                held.append(hearer)
                server.store.hears = lambda values: None
                return ask(wanted, hearer)

            server.store.ask = kept  # type: ignore[method-assign]
            writer.write(PLAIN)
            while not held:
                await asyncio.sleep(0.001)
            writer.close()
            await asyncio.sleep(0.01)
            held[0].set_result([[None], [None]])

    run(asked(), uvloop.new_event_loop)
    assert server.admission.answering == 0
