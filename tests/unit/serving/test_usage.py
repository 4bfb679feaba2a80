"""What is counted in memory adds up, whatever is collected when, and stays within its bounds."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from registry.formats.consumer import OTHERS
from serving.usage import Consumers, Usage

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
REFS = ["a@1.0.0", "a@2.0.0", "b@1.0.0"]


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def all_stored(usage: Usage, most: int = 2_000) -> Counter[tuple[str, str]]:
    """What is handed out until nothing waits."""
    usage.collect()
    found: Counter[tuple[str, str]] = Counter()
    while (batch := usage.batch(most)) is not None:
        for counted in batch.counts:
            found[counted.ref, counted.consumer] += counted.reads
        usage.stored()
    return found


@given(
    st.lists(st.lists(st.sampled_from(REFS), min_size=1, max_size=4), min_size=1, max_size=6),
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 5), st.sampled_from("xyz"), st.integers(1, 100)),
            st.sampled_from(["collect", "batch", "stored"]),
        ),
        max_size=40,
    ),
    st.integers(1, 3),
)
def test_nothing_is_lost_and_nothing_doubled(
    questions: list[list[str]], steps: list[str | tuple[int, str, int]], at_once: int
) -> None:
    """Whatever is read, collected, handed out and stored in which order."""
    usage = Usage(Clock(), counting=2)
    reads = [usage.reads(refs) for refs in questions]
    expected: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    handed_out = None
    for step in steps:
        if step == "collect":
            usage.collect()
        elif step == "batch":
            batch = usage.batch(at_once)
            assert handed_out is None or batch is handed_out
            handed_out = batch
        elif step == "stored":
            for counted in handed_out.counts if handed_out else ():
                found[counted.ref, counted.consumer] += counted.reads
            usage.stored()
            handed_out = None
        elif isinstance(step, tuple):
            which, consumer, entities = step
            question = which % len(questions)
            reads[question][consumer] += entities
            for ref in questions[question]:
                expected[ref, consumer] += entities
    assert found + all_stored(usage, at_once) == expected
    assert usage.waiting == usage.dropped == 0


def test_each_batch_has_a_number_of_its_own() -> None:
    usage = Usage()
    reads = usage.reads(REFS)
    reads["x"] += 1
    usage.collect()
    first, again = usage.batch(2), usage.batch(2)
    assert first is again
    assert first is not None
    usage.stored()
    second = usage.batch(2)
    assert second is not None
    assert (second.number, second.process) == (first.number + 1, first.process)
    assert Usage().reads(REFS) is not reads


def test_counts_are_of_the_day_on_which_they_are_collected() -> None:
    clock = Clock()
    usage = Usage(clock)
    reads = usage.reads(["a@1.0.0"])
    days = []
    for _ in range(2):
        reads["x"] += 1
        usage.collect()
        reads["x"] += 1
        usage.collect()
        days.append(clock.now.date())
        last = clock.now
        clock.now += timedelta(days=1)
    batch = usage.batch()
    assert batch is not None
    assert [(one.day, one.reads) for one in batch.counts] == [(days[0], 2), (days[1], 2)]
    assert batch.counts[1].last_read == last


def test_further_consumers_of_a_day_are_others() -> None:
    clock = Clock()
    usage = Usage(clock, Consumers(2))
    consumers = usage.consumers
    assert [consumers.admit(name.encode(), name) for name in "abcd"] == ["a", "b", OTHERS, OTHERS]
    assert consumers.known == {b"a": "a", b"b": "b"}
    clock.now += timedelta(days=1)
    usage.collect()
    assert [consumers.admit(name, name) for name in "dcb"] == ["d", "c", OTHERS]


def test_what_waits_is_bounded() -> None:
    """Then counts of others grow, then reads are dropped, and both are told."""
    usage = Usage(Clock(), waiting=4)
    for number in range(20):
        usage.reads([f"f{number}@1.0.0"])["x"] += 1
        usage.collect()
    assert (usage.waiting, usage.dropped) == (8, 12)
    usage.reads(["f0@1.0.0"])["x"] += 5
    usage.reads(["f4@1.0.0"])["y"] += 7
    usage.collect()
    assert usage.waiting == 8 + 5 + 7
    found = all_stored(usage)
    named = {(f"f{number}@1.0.0", "x") for number in range(4)}
    assert set(found) == named | {(f"f{number}@1.0.0", OTHERS) for number in range(4, 8)}
    assert (found["f0@1.0.0", "x"], found["f4@1.0.0", OTHERS]) == (6, 8)


def test_questions_that_are_never_asked_again_are_not_kept() -> None:
    """Each is of another body; what they counted is."""
    usage = Usage(Clock(), counting=3)
    for _ in range(100):
        usage.reads(REFS)["x"] += 1
    assert usage.waiting >= 97 * len(REFS)
    assert all_stored(usage) == {(ref, "x"): 100 for ref in REFS}
