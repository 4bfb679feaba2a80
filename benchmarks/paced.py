"""Ticks on a schedule, whatever happens: `python -m benchmarks.paced KAFKA TOPIC RATE SYMBOLS
BEGIN SECONDS`.

Tick n is due at BEGIN + n / RATE on the monotonic clock, belongs to symbol n modulo SYMBOLS, and
has the time at which it was due. Its price is its number among its symbol's ticks, from 1, so an
answer says which ticks it has seen. A tick that is late is sent at once; none is left out. Prints
how late they were handed to the producer, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from confluent_kafka import Producer

NAP_SECONDS = 0.0005


def main() -> None:
    kafka, topic = sys.argv[1:3]
    rate, symbols, begin, seconds = (float(word) for word in sys.argv[3:7])
    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 1,
        }
    )
    producer.list_topics(topic, timeout=10)  # connected before the first is due
    wall = time.time() - time.monotonic()
    names = [f"S{place}" for place in range(int(symbols))]
    total = int(rate * seconds)
    late = np.zeros(total)
    number = 0
    while number < total:
        now = time.monotonic()
        due = min(total, int((now - begin) * rate) + 1)
        for n in range(number, due):
            at = begin + n / rate
            name, count = names[n % len(names)], n // len(names) + 1
            milliseconds = int((wall + at) * 1000)
            tick = f'{{"symbol": "{name}", "price": {count}.0, "ts": {milliseconds}}}'
            producer.produce(topic, tick, name)
            late[n] = time.monotonic() - at
        number = max(number, due)
        producer.poll(0)
        time.sleep(NAP_SECONDS)
    if producer.flush(30):
        sys.exit("the broker did not take every tick")
    p50, p99, p999, worst = np.percentile(late * 1000, (50, 99, 99.9, 100)).round(3).tolist()
    print(json.dumps({"late_ms": {"p50": p50, "p99": p99, "p999": p999, "max": worst}}))


if __name__ == "__main__":
    main()
