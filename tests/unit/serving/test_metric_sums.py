"""Metrics of several processes: any of them shows what all have counted, and never less."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from serving.app import ServerOptions, create_app
from serving.metric_sums import Family, Sample, Siblings, bury, count_in_past
from serving.metrics import Metrics
from serving.process import ThisProcess
from serving.shared_pages import SharedPages
from serving.stores.row_store import Tier

NOBODY = "redis://127.0.0.1:1/0"
SEATS = 3
SAMPLES = {
    "tickwell_requests_total": "requests",
    "tickwell_request_seconds_count": "requests",
    "tickwell_request_seconds_sum": "seconds",
    "tickwell_read_keys_sum": "rows",
    "tickwell_values_total": "values",
}


@dataclass
class Counting:
    """A process with its number, and what it has counted: as metrics, and as plain sums."""

    number: int
    metrics: Metrics
    open: list[None]
    sums: Counter[str] = field(default_factory=Counter)


def shown(metrics: Metrics) -> Counter[str]:
    """The sums that the text of the metrics has."""
    found: Counter[str] = Counter()
    for metric in text_string_to_metric_families(metrics.text().decode()):
        for sample in metric.samples:
            if sample.name in SAMPLES:
                found[sample.name] += sample.value  # type: ignore[assignment]
    return found


class Processes(RuleBasedStateMachine):
    """Processes count, end and are replaced; each shows the sums of all, dead ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = SharedPages.create(1 + SEATS)
        self.sums: Counter[str] = Counter()
        self.number = 0
        self.before: Counter[str] = Counter()
        self.seats = {seat: self._start(seat) for seat in range(1, 1 + SEATS)}

    def _start(self, seat: int) -> Counting:
        self.number += 1
        siblings, opened = Siblings(self.pages, seat, self.number), list[None]()
        return Counting(self.number, Metrics(list, siblings, opened.__len__), opened)

    @rule(
        seat=st.integers(1, SEATS),
        route=st.sampled_from(["/a", "/b"]),
        status=st.sampled_from([200, 503]),
        eighths=st.integers(0, 9),
        rows=st.integers(1, 600),
    )
    def counts(self, seat: int, route: str, status: int, eighths: int, rows: int) -> None:
        process = self.seats[seat]
        process.metrics.request(route, status, eighths / 8)
        process.metrics.read(rows)
        process.metrics.served["ok"] += 2
        process.open.append(None)
        for name, amount in {"requests": 1, "rows": rows, "values": 2}.items():
            process.sums[name] += amount
        process.sums["seconds"] += eighths / 8  # type: ignore[assignment]
        process.metrics.publish()

    @rule(seat=st.integers(1, SEATS), quick=st.integers(0, 1))
    def is_replaced(self, seat: int, quick: int) -> None:
        """It ends, and another one has its page, in which it has published nothing yet.

        Of those that follow some end like that.
        """
        process = self.seats[seat]
        bury(self.pages, seat, process.number)
        self.sums += process.sums
        for _ in range(quick):
            bury(self.pages, seat, self._start(seat).number)
        self.seats[seat] = self._start(seat)

    @invariant()
    def all_show_the_same_sums(self) -> None:
        expected = self.sums + sum((p.sums for p in self.seats.values()), Counter[str]())
        for process in self.seats.values():
            found = shown(process.metrics)
            assert found == {name: expected[of] for name, of in SAMPLES.items() if name in found}
            assert all(found[name] >= count for name, count in self.before.items())
            self.before = found
            connections = {str(seat): len(p.open) for seat, p in self.seats.items()}
            assert process.metrics.total("tickwell_connections") == sum(connections.values())
            for seat, count in connections.items():
                assert process.metrics.total("tickwell_connections", process=seat) == count

    def teardown(self) -> None:
        self.pages.close()


Processes.TestCase.settings = settings(max_examples=15, stateful_step_count=10)
TestProcesses = Processes.TestCase


def test_what_the_supervisor_counts_is_shown() -> None:
    pages = SharedPages.create(2)
    metrics = Metrics(list, Siblings(pages, 1, 1))
    for how in ("crashed", "replaced", "crashed"):
        family = Family("ends", "Ends", "counter", [Sample("ends_total", {"how": how}, 1.0)])
        count_in_past(pages, family)
    assert 'ends_total{how="crashed"} 2.0' in metrics.text().decode()
    assert metrics.processes() == 1
    pages.close()


def test_all_metrics_of_an_application_are_shown_by_the_other_processes() -> None:
    """Every kind of them goes through a page, and is the same number behind it."""
    pages = SharedPages.create(3)
    siblings = [Siblings(pages, page, page) for page in (1, 2)]
    options = ServerOptions(NOBODY, NOBODY, "postgresql://u:p@127.0.0.1:1/none")
    app = create_app(options, process=ThisProcess(siblings=siblings[0]))
    app.state.server.metrics.publish()
    other = Metrics(list, siblings[1])
    assert other.total("tickwell_breaker_state", store="Redis", state="closed") == 1.0
    assert other.total("tickwell_breaker_state", store="Redis", state="open") == 0.0
    assert other.total("tickwell_hot_believed") == 1.0
    assert other.total("tickwell_requests_in_hand", stage="answering", process="1") == 0.0
    bury(pages, 1, 1)
    assert other.processes() == 1
    pages.close()


def test_the_rows_of_tiers_are_those_of_all_processes() -> None:
    pages = SharedPages.create(3)
    options = ServerOptions(NOBODY, NOBODY, "postgresql://u:p@127.0.0.1:1/none")
    apps = [
        create_app(options, process=ThisProcess(siblings=Siblings(pages, page, page)))
        for page in (1, 2)
    ]
    for app in apps:
        counts = app.state.server.hot.store.counts
        counts.rows = counts.asked[Tier.HOT] = 10
        counts.found[Tier.HOT] = 4
    apps[0].state.server.metrics.publish()
    tiers = TestClient(apps[1]).get("/health").json()["tiers"]
    assert tiers["hot"] == {
        "rows_asked": 20,
        "rows_found": 8,
        "hit_ratio": 0.4,
        "believed": True,
    }
    assert tiers["cold"] == {"rows_asked": 0, "rows_found": 0, "hit_ratio": None}
    assert tiers["all"] == {"rows_asked": 20, "rows_found": 8, "hit_ratio": 0.4}
    pages.close()


@pytest.mark.parametrize("value", [True, 1])
def test_a_metric_that_is_no_float_is_shown_as_one(value: float) -> None:
    def families() -> Iterator[Metric]:
        gauge = GaugeMetricFamily("gauge", "A gauge", labels=())
        gauge.add_metric([], value)
        yield gauge

    pages = SharedPages.create(2)
    metrics = Metrics(list, Siblings(pages, 1, 1))
    metrics.add(families)
    assert metrics.total("gauge") == 1.0
    pages.close()


def test_a_process_whose_page_cannot_be_read_is_buried(caplog: pytest.LogCaptureFixture) -> None:
    pages = SharedPages.create(2)
    pages.write(1, b"\xc1 is no MessagePack")
    bury(pages, 1, 7)
    assert "what page 1 has counted cannot be read" in caplog.text
    metrics = Metrics(list, Siblings(pages, 1, 8))
    assert metrics.processes() == 0
    metrics.publish()
    assert metrics.processes() == 1
    pages.close()


def test_a_server_of_one_process_names_none() -> None:
    metrics = Metrics(list, connections=lambda: 7)
    assert "tickwell_connections 7.0" in metrics.text().decode()
    assert (metrics.processes(), metrics.total("tickwell_connections")) == (1, 7.0)


def test_a_process_whose_counts_find_no_room_is_forgotten() -> None:
    """It is replaced, and what others have counted is still there."""
    pages = SharedPages.create(1 + SEATS)
    for seat, name in ((1, "few"), (2, "many")):
        samples = [
            Sample("tickwell_values_total", {"status": f"{name} {number:060}"}, 1.0)
            for number in range(800)
        ]
        family = Family("tickwell_values", "Values", "counter", samples)
        Siblings(pages, seat, seat).publish([family])
        bury(pages, seat, seat)
    (kept,) = Siblings(pages, 3, 3).families()
    assert {sample.labels["status"].split()[0] for sample in kept.samples} == {"few"}
    assert Siblings(pages, 3, 3).alive() == 0
