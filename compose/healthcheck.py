"""Whether a container does its work; exits with 1 and says why where it does not.

healthcheck.py worker http://127.0.0.1:9100    ticks are read and stored, and it spoke lately
healthcheck.py server http://127.0.0.1:8001    it can answer
healthcheck.py demo   http://server:8001       what the demo sends is served
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from typing import Any

LATELY_SECONDS = 15.0


def ask(url: str, body: Any = None) -> str:
    """The answer. Raises OSError where there is none, or it is an error."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data, timeout=4) as answer:
        text: str = answer.read().decode()
        return text


def worker(url: str) -> str | None:
    """Why the worker does not work; None where it does."""
    lines = (line.rpartition(" ") for line in ask(f"{url}/metrics").splitlines())
    metrics = {name: value for name, _, value in lines}
    if float(metrics["tickwell_worker_running"]) != 1:
        return "it waits: for its store, the broker or its partitions"
    silent = time.time() - float(metrics["tickwell_worker_heartbeat_timestamp_seconds"])
    return f"silent for {silent:.0f} s" if silent > LATELY_SECONDS else None


def server(url: str) -> str | None:
    """Why the server cannot answer; the reason is in the error."""
    ask(f"{url}/health/ready")
    return None


def demo(url: str) -> str | None:
    """Why what the demo sends is not served; None where it is."""
    name = "current_price"
    asked = {"features": [name], "entity_type": "symbol", "entity_value": "AAPL"}
    status = json.loads(ask(f"{url}/features/online", asked))["features"][name]["status"]
    return None if status == "ok" else f"{name} of AAPL is {status}"


def main(kind: str, url: str) -> int:
    try:
        wrong = {"worker": worker, "server": server, "demo": demo}[kind](url)
    except OSError as error:
        wrong = str(error)
    print(wrong or "well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
