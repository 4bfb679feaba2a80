"""Two minutes of faults under load, and no guarantee broken."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.chaos.report import command, report
from tests.chaos.run import Options, run
from tickwell.embedded.broker import choose

SEED, MINUTES = 1, 2.0


@pytest.mark.timeout(900)
def test_two_minutes_of_faults() -> None:
    """On services of its own, which it kills; Tansu would lose everything with its process."""
    if choose("auto") != "kafka" and os.environ.get("CI") != "true":
        pytest.skip("needs Apache Kafka: Java 17 and Maven")
    # neither pytest's, which Postgres may not enter, nor gone when the test fails
    place = Path(tempfile.mkdtemp(prefix="tickwell-chaos-"))
    place.chmod(0o755)
    print(f"logs and what readers saw: {place}")
    result = run(Options(SEED, MINUTES, place), print)
    assert result.clean, f"{report(result)}\nagain: {command(SEED, MINUTES)}"
    assert len(result.faults) >= 8
    assert sum(result.faults.values()) >= 20
    assert result.findings.looked["served as ok"] > 100
    assert result.findings.looked["rejected ticks"] > 100
    shutil.rmtree(place)
