"""Load on the server while both workers take 5,000 ticks a second: what is left of its rate."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
from confluent_kafka import Producer

from benchmarks.asking import ENTITIES
from benchmarks.backlog import new_topics
from benchmarks.latency import LEAD_SECONDS, RATE, paced, start_server
from benchmarks.load import Load, asked, await_ok, statuses
from benchmarks.market import features
from benchmarks.processes import Child, processor_seconds
from benchmarks.results import Failed, Run
from benchmarks.services import Services, api_key
from benchmarks.workers import await_shares, start_worker
from tickwell.embedded.ports import keep_port

SINKS = ("online", "offline")
VOLUME_TICKS = 10
"""Of each symbol, which have every feature of volumes then."""

MOST_SECONDS = 20.0
"""That clients take beside what they are told to: they start, connect and warm up."""


def serving(services: Services, load: Load) -> Run:
    """As `benchmarks.serving.serving`, with key, deadline and request id.

    The workers feed hot as always, but the server does not read there, as the one beside which this
    is measured does not.
    """
    settings, topic = new_topics(services)
    prefix = topic.name.removesuffix(".price")
    Path(settings.features).write_text(features(prefix))
    settings = services.fresh(settings)
    key = api_key(settings)
    port = keep_port(services.place / "server-port")
    with ExitStack() as stack:
        server = start_server(services, settings, port, flags=["--keys", "--no-hot"])
        stack.callback(server.stop)
        workers = {sink: start_worker(services, settings, sink) for sink in SINKS}
        for worker in workers.values():
            stack.callback(worker.stop)
        for sink in SINKS:
            await_shares(settings, topic, sink, [server, *workers.values()])
        _send_volumes(settings.kafka, f"{prefix}.volume")
        begin = time.monotonic() + 1.0
        lasts = LEAD_SECONDS + load.seconds + MOST_SECONDS
        prices = stack.enter_context(paced(services, topic, begin, lasts, symbols=ENTITIES))
        time.sleep(LEAD_SECONDS)
        await_ok(server, port, key)
        before, since = _processor(workers), time.monotonic()
        run = asked(services, server, port, load, key=key)
        after, seconds = _processor(workers), time.monotonic() - since
        found = statuses(port, range(0, ENTITIES, 2), key)
        if found != {"ok"}:  # as lagging, where the workers do not keep up
            raise Failed(f"of the values some are {sorted(found)} in the end")
        if prices.popen.poll() is not None:
            raise Failed("the ticks had ended before the requests")
        for worker in workers.values():
            worker.check()
    cpu = {name: round(after[name] - before[name], 3) for name in after}
    return msgspec.structs.replace(
        run,
        cpu={**run.cpu, **cpu},
        detail={**run.detail, "ticks_a_second": RATE, "beside_seconds": seconds},
    )


def _processor(workers: dict[str, Child]) -> dict[str, float]:
    return {name: processor_seconds(worker.pid) for name, worker in workers.items()}


def _send_volumes(kafka: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})
    now = time.time_ns() // 10**6 - VOLUME_TICKS
    for turn in range(VOLUME_TICKS):
        for number in range(ENTITIES):
            volume = 100 + number / 7 + turn / 3
            tick = f'{{"symbol": "S{number}", "volume": {volume!r}, "ts": {now + turn}}}'
            producer.produce(topic, tick, f"S{number}")
        producer.poll(0)
    if producer.flush(30):
        raise Failed("the broker did not take every volume")
