"""Checks whether a container does its work; exits with 1 and prints the reason if it does not.

healthcheck.py worker http://127.0.0.1:9100    it stores ticks, and its heartbeat is recent
healthcheck.py server http://127.0.0.1:8001    it can answer requests
healthcheck.py demo   http://server:8001 FILE  its ticks are served to the API key in the file
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECENT_SECONDS = 15.0
"""The age of a heartbeat, in seconds, above which its worker counts as failed."""


def ask(url: str, body: Any = None, key: str = "") -> str:
    """The answer of a server. Raises OSError when there is none, or it is an error."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"X-API-Key": key} if key else {})
    with urllib.request.urlopen(request, timeout=4) as answer:
        text: str = answer.read().decode()
        return text


def worker(url: str) -> str | None:
    """Why the worker does not work; None when it does."""
    lines = (line.rpartition(" ") for line in ask(f"{url}/metrics").splitlines())
    metrics = {name: value for name, _, value in lines}
    if float(metrics["tickwell_worker_running"]) != 1:
        return "the worker waits for its store, the broker or its partitions"
    silent = time.time() - float(metrics["tickwell_worker_heartbeat_timestamp_seconds"])
    return f"no heartbeat for {silent:.0f} s" if silent > RECENT_SECONDS else None


def server(url: str) -> str | None:
    """None when the server is ready; raises OSError, with the reason, when it is not."""
    ask(f"{url}/health/ready")
    return None


def demo(url: str, key_file: str) -> str | None:
    """Why the demo's ticks are not served; None when they are."""
    name = "current_price"
    request = {"features": [name], "entity_type": "symbol", "entity_value": "AAPL"}
    key = Path(key_file).read_text().strip()
    status = json.loads(ask(f"{url}/features/online", request, key))["features"][name]["status"]
    return None if status == "ok" else f"{name} of AAPL is {status}"


def main(kind: str, *arguments: str) -> int:
    checks: dict[str, Callable[..., str | None]] = {
        "worker": worker,
        "server": server,
        "demo": demo,
    }
    try:
        wrong = checks[kind](*arguments)
    except OSError as error:
        wrong = str(error)
    print(wrong or "healthy")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
