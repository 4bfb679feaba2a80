"""Refusals of what is too much."""

from __future__ import annotations

from serving.api.admission import Admission


def test_a_refusal_keeps_nothing_of_the_one_before() -> None:
    admission = Admission(3)
    first, second = admission.refuse(), admission.refuse()
    assert first is not second
    assert (str(first), admission.refused) == (str(second), 2)
    assert "3 requests" in first.detail
