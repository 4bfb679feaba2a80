"""Minutes of faults under load, and no guarantee broken."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.chaos.report import command, report
from tests.chaos.run import Options, Result, run
from tests.support.brokers import starts_kafka

pytestmark = starts_kafka()  # Tansu would lose everything with its process


@pytest.mark.timeout(900)
def test_a_minute_of_faults() -> None:
    assert_nothing_is_broken(seed=1, minutes=0.7, faults=10)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("seed", "minutes", "faults"), [(1, 2.0, 20), (2, 5.0, 50)])
def test_minutes_of_faults(seed: int, minutes: float, faults: int) -> None:
    result = assert_nothing_is_broken(seed, minutes, faults)
    assert result.findings.looked["cells asked again"] > 100
    assert result.history["repair killed"] > 0


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_minute_of_faults_on_a_cluster() -> None:
    """The registry changes meanwhile, as in the others."""
    assert_nothing_is_broken(seed=1, minutes=1.0, faults=10, cluster=True)


def assert_nothing_is_broken(
    seed: int, minutes: float, faults: int, cluster: bool = False
) -> Result:
    """On services of its own, which it kills."""
    # neither pytest's, which Postgres may not enter, nor gone when the test fails
    place = Path(tempfile.mkdtemp(prefix="tickwell-chaos-"))
    place.chmod(0o755)
    print(f"logs and what readers saw: {place}")
    result = run(Options(seed, minutes, place, cluster=cluster), print)
    assert result.clean, f"{report(result)}\nagain: {command(seed, minutes, cluster)}"
    assert len(result.faults) >= 8
    assert sum(result.faults.values()) >= faults
    assert result.changes["recorded"] > 0
    assert result.changes["activated"] > 0
    assert result.findings.looked["served as ok"] > 100
    assert result.findings.looked["rejected ticks"] > 100
    assert result.findings.looked["values of revisions"] > 100
    assert result.findings.looked["loaded rows"] > 1_000
    assert result.findings.looked["cells of training sets"] > 100
    shutil.rmtree(place)
    return result
