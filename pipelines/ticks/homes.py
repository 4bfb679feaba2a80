"""The home of an entity: the one partition from which its ticks are accepted.

With a partitioner that is known it is a function of the message key, in the log and the same for
all who read it. Otherwise the first partition whose run is stored becomes the home, in each store
for itself: two stores can only agree as long as an entity comes from one partition.
"""

from __future__ import annotations

from registry.definitions import Source


def home_remarks(source: Source, partitions: int) -> list[str]:
    """What is to be said of a source whose topic has so many partitions."""
    if source.partitioner != "any" or partitions == 1:
        return []
    return [
        f"{source.topic} has {partitions} partitions, and its source {source.name} declares "
        'partitioner = "any": messages without a key are rejected (key-mismatch), and the ticks of '
        "an entity are accepted from one partition only, which each store settles for itself. If "
        "they come from several, what is served and what is stored may stem from different ones. "
        "Use a topic of one partition, or give all messages of an entity the same key and declare "
        "how producers choose its partition"
    ]


def elsewhere(source: Source, partition: int, home: int) -> str:
    """Why a tick from a partition is rejected, whose entity has its home in another one."""
    detail = f"came from partition {partition}, and its entity is at home in {home}: "
    if source.partitioner == "any":
        return detail + (
            "producers put its messages in several partitions. Give all messages of an entity the "
            "same key and let all producers use one partitioner, or use a topic of one partition"
        )
    return detail + (
        "its messages have several keys. Give all messages of an entity the same key, or use a "
        "topic of one partition"
    )
