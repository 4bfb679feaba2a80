"""What a worker knows of a partition that it feeds: as of when hot has all that warm had."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.stores.redis.fed_partition import MOST_WAITING, FedPartition, Look
from pipelines.stores.redis.hot_redis import Rows
from pipelines.stores.redis.resp import Texts

TOPIC_ID = bytes(range(16))


def rows(entities: int = 1) -> Rows:
    names = Texts.of(b"A" * entities, np.arange(entities + 1))
    return Rows("price", names, np.zeros((entities, 4), np.uint8))


def look(watermark: int | None = 10, writer: bytes = b"w:3") -> Look:
    return Look(watermark, writer, b"", is_restored=False)


@pytest.fixture
def fed() -> FedPartition:
    """A partition that warm has up to offset 10, with a token."""
    made = FedPartition("ticks.price", TOPIC_ID, 0)
    made.begin_look()
    assert made.judge(look()) is None
    made.begin(look())
    return made


def judged(fed: FedPartition, found: Look) -> str | None:
    fed.begin_look()
    return fed.judge(found)


def test_hot_has_what_warm_had_when_it_was_looked_at(fed: FedPartition) -> None:
    assert fed.as_of(100.0) == 100.0


def test_it_counts_from_the_beginning_of_the_run_under_way(fed: FedPartition) -> None:
    """Its first rows may be read before it is confirmed."""
    fed.storing(10, 20, 97.0)
    assert fed.as_of(100.0) == 97.0


def test_it_counts_from_the_beginning_of_the_oldest_run_that_waits(fed: FedPartition) -> None:
    for begin, since in ((10, 97.0), (20, 98.0)):
        fed.storing(begin, begin + 10, since)
        fed.stored(rows(), begin + 10)
    fed.storing(30, 40, 99.0)
    moments = [fed.as_of(100.0)]
    for _ in range(2):
        fed.fed(1)
        moments.append(fed.as_of(100.0))
    assert moments == [97.0, 98.0, 99.0]


def test_a_run_without_rows_waits_for_nothing(fed: FedPartition) -> None:
    fed.storing(10, 20, 97.0)
    fed.stored(rows(0), 20)
    assert fed.as_of(100.0) == 100.0
    assert judged(fed, look(20)) is None


def test_a_look_may_find_the_run_under_way_stored_or_not(fed: FedPartition) -> None:
    fed.storing(10, 20, 97.0)
    assert judged(fed, look(10)) is None
    assert judged(fed, look(20)) is None
    assert judged(fed, look(15)) is not None
    assert judged(fed, look(None)) is not None


def test_a_look_may_find_any_run_that_was_stored_meanwhile(fed: FedPartition) -> None:
    fed.begin_look()
    for begin in (10, 20, 30):
        fed.storing(begin, begin + 10, 97.0)
        fed.stored(rows(), begin + 10)
    assert [fed.judge(look(end)) for end in (10, 20, 30, 40)] == [None] * 4
    assert judged(fed, look(30)) is not None


def test_what_a_quiet_partition_counts_is_watched_too(fed: FedPartition) -> None:
    """A late part of another worker's run moves no watermark."""
    assert judged(fed, look(writer=b"w:4")) is not None
    fed.storing(10, 20, 97.0)
    assert judged(fed, look(writer=b"w:4")) is None
    assert judged(fed, look(writer=b"x:4")) is not None


def test_too_much_that_waits_is_forgotten(fed: FedPartition) -> None:
    for begin in (10, 20):
        fed.storing(begin, begin + 10, 97.0)
        fed.stored(rows(MOST_WAITING // 2 + 1), begin + 10)
    assert fed.token is None
    assert not fed.waiting
    assert fed.as_of(100.0) == 100.0


def test_no_token_begins_before_a_failed_run_is_settled(fed: FedPartition) -> None:
    token = fed.token
    fed.storing(10, 20, 97.0)
    fed.failed("no answer")
    assert fed.given_up == [token]
    assert judged(fed, look()) is not None
    fed.forget("assigned again")
    assert judged(fed, look()) is not None
    fed.storing(10, 20, 98.0)
    fed.stored(rows(), 20)
    assert judged(fed, look(20)) is None


def test_a_sink_that_has_begun_anew_settles_it(fed: FedPartition) -> None:
    fed.storing(10, 20, 97.0)
    fed.failed("no answer")
    fed.begun("begun")
    assert judged(fed, look()) is None


@pytest.mark.parametrize("found", [look(15), look(writer=b"x:3")])
@pytest.mark.parametrize("settled", ["stored", "begun", "assigned"])
def test_where_another_one_writes_no_token_begins_until_this_one_does(
    fed: FedPartition, found: Look, settled: str
) -> None:
    why = judged(fed, found)
    assert why is not None
    fed.doubt(why)
    assert judged(fed, found) == judged(fed, look()) == why
    era = fed.era
    if settled == "stored":  # as after a run of its own that was stored late
        fed.storing(15, 20, 97.0)
        fed.stored(rows(), 20)
    elif settled == "begun":
        fed.begun("begun")
    else:
        fed.assigned("again")
    assert judged(fed, look(20)) is None
    assert fed.era > era, "a look of before says nothing"


def test_after_a_slow_answer_a_token_begins_at_what_warm_says_next(fed: FedPartition) -> None:
    fed.doubt("hot or warm is slow")
    assert judged(fed, look(15)) is None


def test_a_run_that_is_stored_while_partitions_are_assigned_counts(fed: FedPartition) -> None:
    """Warm may have its first rows already, and the look-up after it is quicker than the run."""
    fed.storing(10, 20, 97.0)
    fed.assigned("again")
    assert fed.as_of(100.0) == 97.0
    assert judged(fed, look(10)) is None
    fed.stored(rows(), 20)
    assert fed.as_of(100.0) == 100.0
    fed.storing(20, 30, 98.0)
    fed.failed("refused")
    assert fed.as_of(100.0) == 100.0


def test_tokens_are_new(fed: FedPartition) -> None:
    tokens = {fed.token}
    for _ in range(100):
        fed.give_up("again")
        tokens.add(fed.begin(look()))
    assert len(tokens) == 101
