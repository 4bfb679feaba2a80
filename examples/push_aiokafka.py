"""Push a tick with aiokafka. Usage: push_aiokafka.py MINE 189.23"""

import asyncio
import json
import os
import sys
import time

from aiokafka import AIOKafkaProducer


async def push(symbol: str, price: float) -> None:
    async with AIOKafkaProducer(bootstrap_servers=os.environ["TICKWELL_KAFKA"]) as producer:
        tick = {"symbol": symbol, "price": price, "ts": time.time_ns() // 10**6}
        await producer.send_and_wait(
            "ticks.price", key=symbol.encode(), value=json.dumps(tick).encode()
        )


asyncio.run(push(sys.argv[1], float(sys.argv[2])))
