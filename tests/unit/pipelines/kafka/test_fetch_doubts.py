"""When a fetch may have brought records of another incarnation of its topic."""

from __future__ import annotations

import pytest

from pipelines.kafka.fetch_by_id import Answer
from pipelines.kafka.fetch_doubts import FetchDoubts


def answer(topic: str = "t", error_code: int = 0) -> Answer:
    return Answer(topic, 0, error_code, 9, 9, [], b"")


class Doubts:
    """Counts doubts at times that the test sets."""

    def __init__(self) -> None:
        self.now, self.many = 10.0, 0
        self.fetches = FetchDoubts(self._doubt, lambda: self.now)

    def _doubt(self) -> None:
        self.many += 1

    def after(self, seconds: float, *found: Answer, by_id: bool = False) -> int:
        """How many doubts a response brings that comes so much later."""
        before = self.many
        self.now += seconds
        self.fetches.answered(found, by_id)
        return self.many - before


def test_by_name_the_first_response_and_one_after_a_pause() -> None:
    doubts = Doubts()
    assert doubts.after(0.0, answer()) == 1
    assert doubts.after(0.05, answer()) == 0
    assert doubts.after(0.15, answer()) == 0
    assert doubts.after(0.3, answer()) == 1
    assert doubts.after(0.05, answer(), answer("other")) == 1
    assert doubts.after(0.05, answer("other")) == 0


def test_by_id_no_response_is_doubtful_but_one_that_refuses() -> None:
    doubts = Doubts()
    assert doubts.after(0.0, answer(), by_id=True) == 0
    assert doubts.after(60.0, answer(), by_id=True) == 0
    assert doubts.after(0.0, answer(error_code=100), by_id=True) == 1


@pytest.mark.parametrize("code", [5, 6, 9, 56, 74, 75])
def test_by_id_a_partition_may_change_its_leader(code: int) -> None:
    doubts = Doubts()
    assert doubts.after(0.0, answer(error_code=code), by_id=True) == 0
    assert doubts.after(0.0, answer(error_code=code), answer(error_code=100), by_id=True) == 1
    assert doubts.after(0.0, answer(error_code=code), by_id=False) == 1


@pytest.mark.parametrize(("by_id", "doubtful"), [(False, 1), (True, 0)])
def test_after_a_fetch_that_failed_a_response_by_name_is_doubtful(
    by_id: bool, doubtful: int
) -> None:
    doubts = Doubts()
    doubts.after(0.0, answer(), by_id=by_id)
    doubts.fetches.failed()
    assert doubts.after(0.05, answer(), by_id=by_id) == doubtful
    assert doubts.after(0.05, answer(), by_id=by_id) == 0


@pytest.mark.parametrize("by_id", [False, True])
def test_a_refusal_is_doubtful_whenever_it_comes(by_id: bool) -> None:
    doubts = Doubts()
    doubts.after(0.0, answer(), by_id=by_id)
    assert doubts.after(0.01, answer(error_code=3), by_id=by_id) == 1
    assert doubts.after(0.01, answer(), by_id=by_id) == 0
