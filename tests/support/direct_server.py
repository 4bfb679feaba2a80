"""An application whose requests are answered directly, all that it counts, and requests to it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware

from registry.api_keys import ApiKey
from registry.features_file import read
from registry.formats.heartbeat import Heartbeat, PartitionLag
from registry.formats.origin import Origin
from registry.formats.row import Row, pack
from serving.api.admission import Admission
from serving.api.answering import Answering
from serving.api.authentication import Authentication, KeyCheck
from serving.api.consumers import by_header
from serving.api.deadlines import Deadlines
from serving.api.direct import BATCH, ONE, Direct, DirectRoute
from serving.api.direct_exchange import DIRECT
from serving.api.feature_routes import ShortCut, feature_routes
from serving.api.problems import HANDLERS
from serving.features.lookup import Names
from serving.features.reader import Reader
from serving.metrics import Metrics
from serving.stores.heard_rows import Heard, Judge
from serving.stores.row_batch import Hearer, Values
from serving.stores.row_store import Packed, RowId, Tier, TieredRows, Unavailable
from serving.usage import Usage
from serving.watch.workers import Lag
from tests.support.raw_http import listening, run
from tests.support.row_stores import MemoryStore
from tests.support.served import catalog_of

CATALOG = catalog_of(read())
NAMES = ("current_price", "price_sma_5", "current_volume")
VARYING = re.compile(
    rb'"answered_at":"[^"]*"|"age_seconds":[^,]*'
    rb"|date: [^\r]*\r\n|content-length: \d+\r\n|\w{16}-[0-9a-f]+"
)
"""What differs from answer to answer: times, made ids, and with them the length."""


def row(time_ns: int, source: str, *values: float, status: int = 0) -> bytes:
    schema = CATALOG.writing[source]
    n = len(CATALOG.schemas[schema].features)
    filled = (*values, *[1.0] * (n - len(values)))
    origin = Origin(bytes(16), 0, 0, 0)
    return pack(Row(schema, time_ns, 0, time_ns, origin, bytes([status] * n), filled))


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


def rows_of_now() -> dict[RowId, Packed]:
    """Rows of two symbols: a test may run long after its module was imported."""
    now = time.time_ns()
    return {
        RowId("price", ("A",)): row(now, "price", 1.5, 2.5),
        RowId("volume", ("A",)): row(now, "volume", 3.5),
        RowId("price", ("B",)): row(now, "price", 1.5, status=1),
    }


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
