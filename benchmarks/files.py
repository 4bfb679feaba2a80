"""A CSV file to a topic: `tickwell produce`, and the program that one writes instead.

From the start of the process to the broker's last answer, its checks included. Each run has a topic
of its own, which must hold every row at its end.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from benchmarks.backlog import new_topics
from benchmarks.processes import Child, peak_mb, processor_seconds, running
from benchmarks.results import Failed, Run
from benchmarks.services import Services, environment
from pipelines.kafka.topics import Topic

SYMBOLS = 100
ROWS_A_MILLISECOND = 1000
DECIMALS = 4
POLL_SECONDS = 0.05
TIME = b'"ts":'
"""What each tick has once, and nothing else in a message."""


def write(file: Path, rows: int) -> Path:
    """A CSV of price ticks: random walks of the symbols in turn, prices of four decimals."""
    random = np.random.default_rng(7)
    walk = random.uniform(10, 1000, SYMBOLS)
    now, written = time.time_ns() // 10**6 - 3_600_000, 0
    with file.open("w") as opened:
        opened.write("symbol,price,size,ts\n")
        while written < rows:
            walk *= 1 + random.uniform(-1e-3, 1e-3, SYMBOLS)
            prices = np.round(walk, DECIMALS).tolist()
            sizes = random.integers(1, 1000, SYMBOLS).tolist()
            many = min(SYMBOLS, rows - written)
            opened.writelines(
                f"S{number},{prices[number]!r},{sizes[number]},"
                f"{now + (written + number) // ROWS_A_MILLISECOND}\n"
                for number in range(many)
            )
            written += many
    return file


def tickwell(services: Services, file: Path, rows: int) -> Run:
    """`tickwell produce --no-confirm`."""
    settings, topic = new_topics(services)
    command = ["-m", "tickwell", "produce", str(file), "--source", "price", "--no-confirm"]
    known = {"TICKWELL_KAFKA": settings.kafka, "TICKWELL_FEATURES": settings.features}
    with running("produce", command, known, services.place) as child:
        return _timed(services, child, topic, rows)


def peer(services: Services, file: Path, rows: int) -> Run:
    """`csv.DictReader`, `json.dumps` and confluent-kafka's producer, which check nothing."""
    settings, topic = new_topics(services)
    command = ["-m", "benchmarks.peers.csv_producer", str(file), topic.name]
    with running("csv_producer", command, environment(settings), services.place) as child:
        return _timed(services, child, topic, rows)


def _timed(services: Services, child: Child, topic: Topic, rows: int) -> Run:
    """The run of a process until it ends; its memory is sampled meanwhile."""
    began, before = time.monotonic(), services.processor_seconds()
    peak = cpu = 0.0
    while child.popen.poll() is None:
        try:
            peak, cpu = peak_mb(child.pid), processor_seconds(child.pid, alone=True)
        except (Failed, OSError):  # it has just ended
            break
        time.sleep(POLL_SECONDS)
    code = child.popen.wait()
    seconds = time.monotonic() - began
    after = services.processor_seconds()
    found = _rows_in(services.settings.kafka, topic)
    if code != 0 or found != rows:
        words = child.log.read_text(errors="replace")[-500:]
        raise Failed(f"ended with {code}, {found:,} of {rows:,} rows are in the topic: {words}")
    return Run(
        value=rows / seconds,
        ticks=rows,
        seconds=seconds,
        cpu={child.name: cpu} | {name: after[name] - before[name] for name in after},
        memory_mb=peak,
    )


def _rows_in(kafka: str, topic: Topic) -> int:
    """The ticks of a topic, whatever their messages hold."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "counter"})
    try:
        partitions = range(topic.partitions)
        consumer.assign([TopicPartition(topic.name, one, OFFSET_BEGINNING) for one in partitions])
        ends = {
            one: consumer.get_watermark_offsets(TopicPartition(topic.name, one), 10)[1]
            for one in partitions
        }
        missing, ticks = sum(ends.values()), 0
        while missing:
            messages = consumer.consume(10_000, 10)
            if not messages:
                raise Failed(f"{topic.name}: {missing:,} messages cannot be read")
            missing -= len(messages)
            ticks += sum((message.value() or b"").count(TIME) for message in messages)
        return ticks
    finally:
        consumer.close()
