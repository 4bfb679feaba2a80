"""What the sink sends to Redis for a batch, and a rebuild for a restored state, to the byte."""

from typing import Any

import numpy as np

from pipelines.compute.batch import Batch, Origins
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import EntityState, tick_dtype
from pipelines.kafka.run import Run
from pipelines.stores.redis.batch_writes import BatchWrites
from pipelines.stores.redis.entity_write import WriteCall
from pipelines.stores.redis.restored_states import Restored, restored_write
from registry.definitions import Field, RowSchema, Source
from registry.formats.origin import ORIGIN, Origin
from registry.formats.row import Row, pack

TOPIC_ID = bytes(range(16))
HISTORY = 3
SOURCE = Source(
    name="position",
    topic="ticks.position",
    key=("portfolio", "symbol"),
    fields=(Field("quantity", False, 0.0), Field("multiplier", True, 1.0)),
)
KEYS = [
    *("tw:{b145}:state:position:P1\x1fA", "tw:{b145}:row:position:P1\x1fA"),
    *("tw:{b145}:members:position:P1", "tw:{b145}:closed:position:P1"),
    *("tw:{b43}:state:position:P2\x1fB", "tw:{b43}:row:position:P2\x1fB"),
    *("tw:{b43}:members:position:P2", "tw:{b43}:closed:position:P2"),
]
"""Of the two entities of the batch, state, row, members and last close each."""


def int64s(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, np.int64)


def batch() -> Batch:
    """The fifth to seventh tick of `P1`'s A, whose ring of 3 wraps, and two of a new `P2`'s B."""
    origins = np.zeros(2, ORIGIN.dtype)
    origins[0] = (np.void(TOPIC_ID), 7, 999, 2)
    return Batch(
        run=Run.empty("ticks.position", TOPIC_ID, 7, 1000),
        source=SOURCE,
        schema=RowSchema(258, "position", ("a@1", "b@1")),
        names=EntityNames.of(["P1\x1fA", "P2\x1fB"]),
        expected=Origins(origins, np.array([True, False])),
        fill=int64s(9, 2),
        name=np.array([0, 1, 0, 0, 1], np.int32),
        ordinal=int64s(4, 0, 5, 6, 1),
        offset=int64s(1000, 1001, 1002, 1002, 2**40),
        index=np.array([0, 0, 0, 1, 0], np.int32),
        event_time=int64s(10**18, 1, 10**18 + 1, 10**18 + 2, 2),
        sequence=int64s(0, 0, 1, 2, 3),
        tick_time=int64s(11, 12, 13, 14, 15),
        seq=int64s(-(2**63), 1, 2, 3, 4),
        op=np.zeros(5, np.uint8),
        fields=np.arange(10.0).reshape(5, 2),
        known_at=int64s(21, 22, 23, 24, 25),
        features=np.array([[0.5, np.nan], [1.5, -0.0], [2.5, 1e300], [3.5, np.inf], [4.5, 7]]),
        status=np.array([[0, 1], [0, 0], [0, 2], [1, 0], [0, 0]], np.uint8),
        rejected=[],
        texts=np.zeros(0, np.uint8),
        seq_text=np.zeros((5, 2), np.int64),
        passed_over=0,
    )


def shown(arguments: list[Any]) -> list[Any]:
    return [one.hex() if isinstance(one, bytes) else one for one in arguments]


ID = TOPIC_ID.hex()
MARK = "6c61796f757432ff"


def test_a_batch_is_written_to_the_byte() -> None:
    """As earlier versions wrote it: expected identity, header, row, member, pieces of the ring."""
    call, writes = WriteCall(), BatchWrites(batch(), HISTORY)
    for index in range(2):
        call.add("position", writes.write(index))
    assert call.keys == KEYS
    assert shown(call.arguments) == [
        f"{ID}0000000700000000000003e7000000020000000000000004",
        f"{ID}0000000700000000000003ea00000001000000000000000200000000000000070000000000000009"
        f"{MARK}00000003000000280000000000000003",
        "01000001020de0b6b3a764000200000000000000020000000000000018"
        f"{ID}0000000700000000000003ea00000001"
        "0100400c0000000000007ff0000000000000",
        "A",
        2,
        120,
        "000064a7b3b6e00d0b000000000000000000000000000080"
        "0000000000000000000000000000f03f"
        "010064a7b3b6e00d0d000000000000000200000000000000"
        "00000000000010400000000000001440",
        80,
        "020064a7b3b6e00d0e00000000000000030000000000000000000000000018400000000000001c40",
        "",
        f"{ID}000000070000010000000000000000000000000000000003"
        f"00000000000000020000000000000002{MARK}00000003000000280000000000000002",
        f"0100000102000000000000000200000000000000030000000000000019{ID}"
        "00000007000001000000000000000000"
        "00004012000000000000401c000000000000",
        "B",
        1,
        80,
        "01000000000000000c000000000000000100000000000000"
        "00000000000000400000000000000840"
        "02000000000000000f000000000000000400000000000000"
        "00000000000020400000000000002240",
    ]


def test_a_restored_state_is_written_to_the_byte() -> None:
    """Without an expected state, and in place of one; the count of its ticks is below zero."""
    ticks = np.zeros(2, tick_dtype(2))
    ticks["event_time"], ticks["tick_time"], ticks["seq"] = [5, 6], [3, 4], [1, 2]
    ticks["fields"] = [[1, 2], [3, 4]]
    state = EntityState(Origin(TOPIC_ID, 7, 50, 1), sequence=3, count=3, fill=1, ticks=ticks)
    row = pack(Row(258, 6, 3, 99, state.origin, b"\0\2", (1.25, float("nan"))))
    identity = f"{ID}000000070000000000000032000000010000000000000003"
    for below, expected in ((None, ""), (state, identity)):
        call = WriteCall()
        call.add("position", restored_write(Restored("P1\x1fA", state, row), below, HISTORY))
        assert call.keys == KEYS[:4]
        assert shown(call.arguments) == [
            expected,
            f"{ID}000000070000000000000032000000010000000000000003"
            f"00000000000000030000000000000001{MARK}0000000300000028fffffffffffffffe",
            f"0100000102000000000000000600000000000000030000000000000063{ID}"
            "000000070000000000000032000000010002"
            "3ff40000000000007ff8000000000000",
            "A",
            1,
            120,
            "050000000000000003000000000000000100000000000000"
            "000000000000f03f0000000000000040"
            "060000000000000004000000000000000200000000000000"
            "00000000000008400000000000001040",
        ]
