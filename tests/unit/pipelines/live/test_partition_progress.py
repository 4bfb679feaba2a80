"""How far partitions are delivered, stored and committed."""

from __future__ import annotations

from faust.types import TP

from pipelines.live.partition_progress import PartitionProgress

HERE = TP("ticks.price", 0)


def at_zero(tp: TP) -> int:
    return 0


def test_a_position_of_the_store_is_committed() -> None:
    """Nothing may come that would be acked: the store may have been filled in another way."""
    progress = PartitionProgress()
    progress.begin({HERE})
    progress.resume({HERE: 5})
    assert progress.unpositioned == set()
    assert progress.to_commit(HERE) == 5
    assert progress.following(HERE, at_zero) == 5


def test_an_empty_store_follows_where_the_log_begins() -> None:
    progress = PartitionProgress()
    progress.begin({HERE})
    assert progress.following(HERE, lambda tp: 30) == 0, "not known before the look-up"
    progress.resume({HERE: None})
    assert progress.uncommitted == []
    assert progress.following(HERE, lambda tp: 30) == 30


def test_a_commit_of_an_earlier_offset_leaves_the_later_one() -> None:
    progress = PartitionProgress()
    progress.begin({HERE})
    progress.store(HERE, 7)
    progress.store(HERE, 9)
    progress.committed(HERE, 7)
    assert progress.uncommitted == [HERE]
    progress.committed(HERE, 9)
    assert progress.uncommitted == []
    assert progress.following(HERE, at_zero) == 9


def test_a_new_generation_knows_nothing() -> None:
    progress = PartitionProgress()
    progress.begin({HERE})
    progress.resume({HERE: 5})
    progress.begin({HERE})
    assert progress.unpositioned == {HERE}
    assert progress.uncommitted == []
    assert list(progress.passed_over([HERE], {"ticks.price": bytes(16)}, lambda tp: 9)) == []
