"""Push a tick with confluent-kafka. Usage: push_confluent.py MINE 189.23"""

import json
import os
import sys
import time

from confluent_kafka import Producer

symbol, price = sys.argv[1], float(sys.argv[2])
producer = Producer(
    {
        "bootstrap.servers": os.environ["TICKWELL_KAFKA"],
        "partitioner": "murmur2_random",  # librdkafka has another default; all must agree
    }
)
tick = {"symbol": symbol, "price": price, "ts": time.time_ns() // 10**6}
producer.produce("ticks.price", key=symbol, value=json.dumps(tick))
producer.flush()
