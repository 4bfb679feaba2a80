"""Heartbeats as metrics: each worker under its name, and no time of a tick before its first one."""

from __future__ import annotations

from prometheus_client.core import Metric

from registry.formats.heartbeat import Heartbeat, PartitionLag, Verified, VerifiedPlace
from registry.heartbeat_metrics import heartbeat_families

BEAT = Heartbeat(
    *("online", "one", 7, 1_000.5, "retrying", 900.0),
    rows=12,
    rejected={"late": 3},
    lag=(PartitionLag("t", 2, 10, 14, 4, behind_seconds=1.5, unseen_seconds=0.25),),
    newest={"price": 1_700_000_000_250_000_000},
)


def samples(*metrics: Metric) -> dict[tuple[str, str], float]:
    """Values by name and the values of the labels."""
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def test_a_worker_shows_its_own_without_a_name() -> None:
    found = samples(*heartbeat_families([BEAT]))
    assert found == {
        ("tickwell_worker_rows", ""): 12.0,
        ("tickwell_worker_running", ""): 0.0,
        ("tickwell_worker_retrying", ""): 1.0,
        ("tickwell_worker_heartbeat_timestamp_seconds", ""): 1_000.5,
        ("tickwell_worker_passed_over", ""): 0.0,
        ("tickwell_worker_lag_messages", "t,2"): 4.0,
        ("tickwell_worker_behind_seconds", "t,2"): 1.5,
        ("tickwell_worker_unseen_seconds", "t,2"): 0.25,
        ("tickwell_worker_rejected_ticks", "late"): 3.0,
        ("tickwell_worker_newest_tick_timestamp_seconds", "price"): 1_700_000_000.25,
    }


def test_a_server_names_each_worker() -> None:
    started = Heartbeat("offline", "two", 8, 1_000.0, "running", 900.0)
    found = samples(*heartbeat_families([BEAT, started], ("sink", "instance")))
    assert found["tickwell_worker_running", "online,one"] == 0.0
    assert found["tickwell_worker_running", "offline,two"] == 1.0
    times = {key for key in found if key[0].endswith("newest_tick_timestamp_seconds")}
    assert times == {("tickwell_worker_newest_tick_timestamp_seconds", "online,one,price")}


def test_what_was_verified_is_counted_by_part_and_source() -> None:
    """And of a place that was not looked at yet there is no time."""
    places = (
        VerifiedPlace("rows", "price", 1_200, 3, 1, 1_005.5),
        VerifiedPlace("served", "", 0, 0, 0),
    )
    beat = Heartbeat("offline", "two", 8, 1_000.0, "running", 900.0, verified=Verified(places, 0.5))
    found = samples(*heartbeat_families([beat]))
    assert {key: value for key, value in found.items() if "verify" in key[0]} == {
        ("tickwell_verify_values", "rows,price"): 1_200.0,
        ("tickwell_verify_values", "served,"): 0.0,
        ("tickwell_verify_unverifiable", "rows,price"): 3.0,
        ("tickwell_verify_unverifiable", "served,"): 0.0,
        ("tickwell_verify_differences", "rows,price"): 1.0,
        ("tickwell_verify_differences", "served,"): 0.0,
        ("tickwell_verify_last_timestamp_seconds", "rows,price"): 1_005.5,
        ("tickwell_verify_seconds", ""): 0.5,
    }
