"""The example of a model is run as the README says, on real data that ticks faster than there."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import httpx
import pytest

from tests.support.pipeline import Pipeline, wait_for
from tickwell.demo import messages
from tickwell.embedded.ports import HOST, keep_port

VOLATILITY = Path(__file__).parents[2] / "examples/volatility.py"
STEPS = 500
STORED_SECONDS = 15
"""What the example leaves out of the newest ticks, and a little."""


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").is_success
    except httpx.TransportError:
        return False


@pytest.mark.long
@pytest.mark.timeout(240)
def test_from_ticks_to_a_model(running: Pipeline, tmp_path: Path) -> None:
    port = keep_port(tmp_path / "port")
    url = f"http://{HOST}:{port}"
    running.start_both()
    running.start("server", "serve", "--port", str(port))
    producer = running.producer()
    for step in islice(messages(), 1, STEPS):  # the first has positions
        for source in ("price", "volume"):
            sent = [(tick.key, tick.value) for topic, tick in step if topic == source]
            running.produce(source, sent, producer)
    running.wait_drained("online", "offline")
    wait_for("the server is ready", lambda: is_ready(url))
    time.sleep(STORED_SECONDS)
    png = tmp_path / "volatility.png"
    ran = subprocess.run(
        [sys.executable, VOLATILITY, png],
        env={**running.environment(), "TICKWELL_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "to the bit, of all symbols" in ran.stdout
    assert len(re.findall(r"a tick in the next 20 ticks$", ran.stdout, re.MULTILINE)) == 6
    assert png.read_bytes().startswith(b"\x89PNG")
