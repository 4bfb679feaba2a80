"""A CSV to a topic as one writes it after reading the documentation of the two libraries.

python -m benchmarks.peers.csv_producer FILE TOPIC
"""

from __future__ import annotations

import csv
import json
import os
import sys

from confluent_kafka import Producer


def main() -> None:
    file, topic = sys.argv[1:]
    producer = Producer(
        {
            "bootstrap.servers": os.environ["TICKWELL_KAFKA"],
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 5,
        }
    )
    with open(file, newline="") as opened:
        for row in csv.DictReader(opened):
            tick = {
                "symbol": row["symbol"],
                "price": float(row["price"]),
                "size": int(row["size"]),
                "ts": int(row["ts"]),
            }
            while True:
                try:
                    producer.produce(topic, key=row["symbol"], value=json.dumps(tick))
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
    producer.flush()


if __name__ == "__main__":
    main()
