"""Refusals of what is too much."""

from __future__ import annotations

from serving.admission_metrics import admission_families
from serving.api.admission import Admission
from serving.api.unread import Unread
from serving.metrics import Metrics


def test_a_refusal_keeps_nothing_of_the_one_before() -> None:
    admission = Admission(3)
    first, second = admission.refuse(), admission.refuse()
    assert first is not second
    assert (str(first), admission.refused) == (str(second), 2)
    assert "3 requests in hand, or 64,000,000 bytes" in first.detail


def test_what_is_in_hand_and_what_was_refused_are_metrics() -> None:
    metrics, admission, unread = Metrics(list), Admission(3), Unread()
    unread.bytes, unread.hung_up = 40_000, 2
    metrics.add(admission_families(admission, unread))
    admission.answering, admission.receiving = 3, 1
    admission.answering_bytes, admission.receiving_bytes = 700, 30
    admission.refuse()
    assert metrics.total("tickwell_bodies_in_hand_bytes", stage="answering") == 700.0
    assert metrics.total("tickwell_bodies_in_hand_bytes", stage="receiving") == 30.0
    assert metrics.total("tickwell_requests_in_hand", stage="answering") == 3.0
    assert metrics.total("tickwell_requests_in_hand", stage="receiving") == 1.0
    assert metrics.total("tickwell_requests_overloaded_total") == 1.0
    assert metrics.total("tickwell_unread_answers_bytes") == 40_000.0
    assert metrics.total("tickwell_unread_hung_up_total") == 2.0
