"""What is answered directly is answered as by the application, to the byte."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware

from registry.api_keys import ApiKey
from registry.features_file import read
from registry.formats import api_key
from registry.formats.heartbeat import Heartbeat, PartitionLag
from registry.formats.origin import Origin
from registry.formats.row import Row, pack
from serving.api.admission import Admission
from serving.api.answering import Answering
from serving.api.authentication import Authentication, KeyCheck
from serving.api.consumers import by_header
from serving.api.deadlines import Deadlines
from serving.api.direct import BATCH, ONE, Direct, DirectRoute
from serving.api.direct_exchange import DIRECT, DirectExchange
from serving.api.feature_routes import ShortCut, feature_routes
from serving.api.problems import HANDLERS
from serving.features.lookup import Names
from serving.features.reader import Reader
from serving.metrics import Metrics
from serving.stores.heard_rows import Heard, Judge
from serving.stores.row_batch import Hearer, Values
from serving.stores.row_store import UNAVAILABLE, Packed, RowId, Tier, TieredRows, Unavailable
from serving.usage import Usage
from serving.watch.workers import Lag
from tests.support.raw_http import answers, listening, run
from tests.support.row_stores import MemoryStore
from tests.support.served import catalog_of

CATALOG = catalog_of(read())
NAMES = ("current_price", "price_sma_5", "current_volume")
VARYING = re.compile(
    rb'"answered_at":"[^"]*"|"age_seconds":[^,]*'
    rb"|date: [^\r]*\r\n|content-length: \d+\r\n|\w{16}-[0-9a-f]+"
)
"""What differs from answer to answer: times, made ids, and with them the length."""

TIME = time.time_ns()


def row(source: str, *values: float, status: int = 0) -> bytes:
    schema = CATALOG.writing[source]
    n = len(CATALOG.schemas[schema].features)
    filled = (*values, *[1.0] * (n - len(values)))
    origin = Origin(bytes(16), 0, 0, 0)
    return pack(Row(schema, TIME, 0, TIME, origin, bytes([status] * n), filled))


class Store(MemoryStore):
    """Rows that are waited for, and heard; of both it counts the reads."""

    def __init__(self, rows: dict[RowId, Packed]) -> None:
        super().__init__(rows)
        self.waited, self.heard, self.answered = 0, 0, 0
        self.hears: Callable[[Values], Values | None] = lambda values: values
        """What hearers are told in place of the rows; None where they are told nothing."""
        self.is_asked = True

    def name(self, row: RowId) -> bytes:
        return "/".join((row.source, *row.entity)).encode()

    def _of(self, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[Packed]]:
        known = {self.name(one): packed for one, packed in self._rows.items()}
        return [[known.get(name) for name in names] for _, names in wanted]

    async def named_rows(
        self, wanted: Sequence[tuple[str, Sequence[bytes]]]
    ) -> list[TieredRows] | Unavailable:
        self.waited += 1
        await asyncio.sleep(0)
        return [TieredRows(rows, Tier.WARM) for rows in self._of(wanted)]

    def ask(self, wanted: Sequence[tuple[str, Sequence[bytes]]], hearer: Hearer) -> Judge | None:
        if not self.is_asked:
            return None
        self.heard += 1
        told = self.hears(self._of(wanted))

        def tell() -> None:
            assert not hearer.done()
            assert told is not None
            hearer.set_result(told)

        if told is not None:
            asyncio.get_running_loop().call_soon(tell)
        return self._judged

    def _judged(self, values: Values) -> Heard | None:
        if isinstance(values, Unavailable):
            return None
        return Heard(values, Tier.WARM, self._count)

    def _count(self) -> None:
        self.answered += 1


def on_time(until: float) -> Lag:
    """What workers say that are on time until then, Unix seconds."""
    lags = [PartitionLag(f"ticks.{source}", 0, 1, 1, 0, 0.0, 0.0) for source in CATALOG.sources]
    topics = dict.fromkeys([lag.topic for lag in lags], 1)
    beat = Heartbeat(
        "online", "one", 1, until, "running", until, lag=tuple(lags), partitions=topics
    )
    return Lag([beat])


class Watch:
    """A catalog, what is known of workers, and keys."""

    def __init__(self) -> None:
        self.names = Names(CATALOG)
        self.lag = on_time(time.time() + 60)
        self.keyring: dict[bytes, ApiKey] = {}


class Server:
    """An application with direct answers, and all that it counts."""

    def __init__(self, rows: dict[RowId, Packed], **options: Any) -> None:
        self.store, self.watch, self.metrics = Store(rows), Watch(), Metrics(list)
        self.served: Counter[str] = Counter()
        self.usage = Usage()
        self.admission = Admission(10)
        watch: Any = self.watch
        answering = Answering(Reader(self.store), self.store, watch, watch, self.served)
        bounds = self.admission, Deadlines(6_000)
        consumer_of = by_header(self.usage.consumers)
        routes = feature_routes(answering, self.metrics, bounds, consumer_of=consumer_of)
        needs_keys = options.get("needs_keys", False)
        middleware = [Middleware(ShortCut, routes=routes)]
        if needs_keys:
            known = Middleware(Authentication, keys=self.watch, metrics=self.metrics)
            middleware.insert(0, known)
        self.app = Starlette(middleware=middleware, exception_handlers=dict(HANDLERS))
        if options.get("is_direct", True):
            access = KeyCheck(self.watch) if needs_keys else None, options.get("compress", False)
            how = self.store, self.metrics, bounds, consumer_of, access
            direct = [
                DirectRoute(ONE, answering.known, *how),
                DirectRoute(BATCH, answering.known_batches, *how),
            ]
            setattr(self.app.state, DIRECT, Direct(direct))

    async def asked(self, *packets: bytes) -> bytes:
        """What is answered; each packet is sent once all requests before have their answers."""
        sent, received = b"", b""
        async with listening(self.app, proxy_headers=False) as address:
            reader, writer = await asyncio.open_connection(*address)
            for packet in packets:
                writer.write(packet)
                sent += packet
                if sent.endswith((b"}}", b"}]}")):
                    while len(complete(received)) < sent.count(b"POST "):
                        piece = await asyncio.wait_for(reader.read(65_536), 10)
                        if not piece:
                            break
                        received += piece
                else:
                    await asyncio.sleep(0.01)
            writer.close()
        return received

    def ask(self, *packets: bytes) -> bytes:
        return run(self.asked(*packets), uvloop.new_event_loop)


def request(*headers: bytes, symbol: str = "A", features: Sequence[str] = NAMES) -> bytes:
    body = json.dumps({"features": features, "entity": {"symbol": symbol}}).encode()
    lines = (b"POST /features/online HTTP/1.1", b"Host: a", *headers)
    return b"".join(b"%b\r\n" % line for line in lines) + (
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


def batch(*headers: bytes, symbols: Sequence[str] = "AB", query: bytes = b"") -> bytes:
    entities = [{"symbol": symbol} for symbol in symbols]
    body = json.dumps({"features": NAMES, "entities": entities}).encode()
    lines = (b"POST /features/batch%b HTTP/1.1" % query, b"Host: a", *headers)
    return b"".join(b"%b\r\n" % line for line in lines) + (
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


ROWS: dict[RowId, Packed] = {
    RowId("price", ("A",)): row("price", 1.5, 2.5),
    RowId("volume", ("A",)): row("volume", 3.5),
    RowId("price", ("B",)): row("price", 1.5, status=1),
}
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
    ordinary, server = Server(ROWS, is_direct=False), Server(ROWS)
    assert same(server.ask(*packets)) == same(ordinary.ask(*packets))
    assert server.store.answered == direct
    assert server.served == ordinary.served
    assert totals(server) == totals(ordinary)
    assert (server.admission.answering, server.admission.answering_bytes) == (0, 0)
    assert counted(server) == counted(ordinary)


def complete(received: bytes) -> list[bytes]:
    """The heads of answers that have come whole, but for those that say to go on."""
    found, begin = [], 0
    while (end := received.find(b"\r\n\r\n", begin)) >= 0:
        head = received[begin : end + 4]
        length = re.search(rb"content-length: (\d+)", head)
        begin = end + 4 + (0 if length is None else int(length[1]))
        if begin <= len(received) and b" 100 Continue" not in head:
            found.append(head)
    return found


def same(received: bytes) -> bytes:
    """What was received, without what varies."""
    return VARYING.sub(b"", received)


def totals(server: Server) -> list[bytes]:
    text = server.metrics.text()
    return [line for line in text.splitlines() if line.startswith(b"tickwell_requests_total")]


def counted(server: Server) -> dict[tuple[str, str], int]:
    server.usage.collect()
    batch = server.usage.batch()
    counts = batch.counts if batch else ()
    return {(one.ref, one.consumer): one.reads for one in counts}


def test_what_gets_late_is_lagging_from_then_on() -> None:
    server = Server(ROWS)
    told = [one.body for one in answers(server.ask(PLAIN, PLAIN, LAST))]
    assert [body.count(b'"ok"') for body in told] == [3, 3, 3]
    server.watch.lag = Lag([])
    told = [one.body for one in answers(server.ask(PLAIN, PLAIN, LAST))]
    assert [body.count(b'"lagging"') for body in told] == [3, 3, 3]
    assert server.store.answered == 1 + 2


def test_a_worker_that_catches_up_while_rows_are_read_does_not_make_them_fresh() -> None:
    server = Server(ROWS)
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
    ordinary, server = Server(ROWS, is_direct=False), Server(ROWS)
    server.store.hears = hears
    packets = (PLAIN, PLAIN, PLAIN, LAST)
    assert same(server.ask(*packets)) == same(ordinary.ask(*packets))
    assert (server.store.heard, server.store.answered) == (2, 0)
    assert server.store.waited == ordinary.store.waited == 4
    assert server.served == ordinary.served
    assert totals(server) == totals(ordinary)


def test_a_store_that_must_be_waited_for_is() -> None:
    server = Server(ROWS)
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

    server = Server(ROWS)

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
    server = Server(ROWS)

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

            async def never(wanted: Any) -> Any:
                server.store.named_rows = ordinary  # type: ignore[method-assign]
                await asyncio.Event().wait()

            server.store.named_rows = never  # type: ignore[method-assign]
            writer.write(next_one)
            while len(complete(received)) < 3:
                received += await asyncio.wait_for(reader.read(65_536), 10)
            writer.close()
            return received

    statuses = [one.status for one in answers(run(asked(), uvloop.new_event_loop))]
    assert statuses == [200, 503, 200]


def test_a_full_server_refuses() -> None:
    server = Server(ROWS)

    def hears(values: Values) -> Values:
        server.admission.most = 0
        return values

    server.store.hears = hears
    statuses = [one.status for one in answers(server.ask(PLAIN, PLAIN, PLAIN, LAST))]
    assert statuses == [200, 200, 503, 503]
    assert server.store.heard == 1


def test_a_key_that_is_revoked_is_refused_at_once() -> None:
    server = Server(ROWS, needs_keys=True)
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
    server = Server(ROWS, compress=True)
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
    server = Server(ROWS, compress=True)
    assert len(answers(server.ask(request(features=features), request(features=features), LAST)))
    assert server.store.answered == 1


def test_a_client_that_hangs_up_leaves_nothing_behind() -> None:
    server = Server(ROWS)
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
