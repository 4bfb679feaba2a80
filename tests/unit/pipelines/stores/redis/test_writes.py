"""What the sink sends to Redis for a batch, and a rebuild for a restored state, to the byte."""

from typing import Any

import numpy as np

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import EntityState, tick_dtype
from pipelines.compute.origins import Origins
from pipelines.compute.state_tails import StateTails
from pipelines.kafka.run import Run
from pipelines.stores.redis.batch_writes import BatchWrites
from pipelines.stores.redis.entity_write import WriteCall
from pipelines.stores.redis.restored_states import Restored, restored_write
from registry.definitions import Field, RowSchema, Source
from registry.formats.origin import ORIGIN, Origin
from registry.formats.row import Row, pack
from registry.formats.state import CLOSED

TOPIC_ID = bytes(range(16))
SOURCE = Source(
    name="position",
    topic="ticks.position",
    key=("portfolio", "symbol"),
    fields=(Field("quantity", False, 0.0), Field("multiplier", True, 1.0)),
)
KEYS = [
    *("tw:3:{b0}:rows:position", "tw:3:{b0}:states:position", "tw:3:{b0}:chunks:position"),
    *("tw:3:{b145}:members:position:P1", "tw:3:{b145}:closed:position:P1"),
    *("tw:3:{b43}:members:position:P2", "tw:3:{b43}:closed:position:P2"),
]
"""The hashes, and of the two entities of the batch members and last close."""


def int64s(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, np.int64)


def batch() -> Batch:
    """The eighth to tenth tick of `P1`'s A, which fill a block, and two of a new `P2`'s B."""
    origins = np.zeros(2, ORIGIN.dtype)
    origins[0] = (np.void(TOPIC_ID), 7, 999, 2)
    return Batch(
        run=Run.empty("ticks.position", TOPIC_ID, 7, 1000),
        source=SOURCE,
        schema=RowSchema(258, "position", ("a@1", "b@1")),
        names=EntityNames.of(["P1\x1fA", "P2\x1fB"]),
        expected=Origins(origins, np.array([True, False]), int64s(7, 0)),
        fill=int64s(9, CLOSED),
        fill_before=int64s(6, 0),
        tails=StateTails(
            newest=int64s(3, 4),
            accepted=int64s(10, 2),
            first_block=int64s(0, 0),
            words=np.arange(100, 116),
            ends=int64s(0, 8, 16),
            chunk_of=int64s(0),
            chunk_block=int64s(1),
            chunk_words=np.arange(200, 232),
            chunk_ends=int64s(0, 32),
            dropped_of=int64s(1),
            dropped_block=int64s(77),
        ),
        name=np.array([0, 1, 0, 0, 1], np.int32),
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


ID = TOPIC_ID.hex()
HEADERS = [
    f"{ID}0000000700000000000003ea00000001000000000000000a0000000000000002"
    "0de0b6b3a7640002000000090000000000000000" + "02030000",
    f"{ID}00000007000001000000000000000000000000000000000200000000000000030000000000000002"
    "ffffffff0000000000000000" + "02030000",
]
"""As the states of the two entities begin."""
ROWS = [
    "01000001020de0b6b3a764000200000000000000020000000000000018"
    f"{ID}0000000700000000000003ea00000001"
    "0100400c0000000000007ff0000000000000",
    f"0100000102000000000000000200000000000000030000000000000019{ID}"
    "00000007000001000000000000000000"
    "00004012000000000000401c000000000000",
]
"""As earlier versions wrote them."""


def words(first: int, end: int) -> str:
    return np.arange(first, end).tobytes().hex()


def shown(arguments: list[Any]) -> list[Any]:
    return [one.hex() if isinstance(one, bytes) else one for one in arguments]


def test_a_batch_is_written_to_the_byte() -> None:
    """Name, expected identity, row, state, chunks, dropped ones, member, and time of its close."""
    call = WriteCall("position", 0)
    for write in BatchWrites(batch()).writes():
        call.add(write)
    assert call.keys == KEYS
    identity = f"{ID}0000000700000000000003e7000000020000000000000007"
    assert shown(call.arguments) == [
        *("P1\x1fA", identity, ROWS[0], HEADERS[0] + words(100, 108)),
        *(1, "P1\x1fA\x1f#1", words(200, 232), 0, "A", ""),
        *("P2\x1fB", "", ROWS[1], HEADERS[1] + words(108, 116)),
        *(0, 1, "P2\x1fB\x1f#77", "B", "0000000000000002"),
    ]


def test_a_part_of_a_batch_is_the_same_of_some_entities() -> None:
    """Of the second entity alone, by indexes of its own; what is compared is by the batch's."""
    part = BatchWrites(batch()).part(slice(1, 2))
    assert part.names.data.tobytes() == b"P2\x1fB"
    assert (part.rows.tobytes().hex(), part.headers.tobytes().hex()) == (ROWS[1], HEADERS[1])
    assert part.ticks.data.tobytes().hex() == words(108, 116)
    assert (len(part.tails.chunk_of), part.tails.dropped_of.tolist()) == (0, [0])
    assert list(part.memberships()) == [("P2\x1fB", bytes.fromhex("0000000000000002"))]
    assert part.some_names(int64s(0)).data.tobytes() == b"P1\x1fA"
    assert part.identities(int64s(0, 1)).ends.tolist() == [0, 40, 40]


def test_a_restored_state_is_written_to_the_byte() -> None:
    """Without an expected state, and in place of one, whose chunks are removed."""
    ticks = np.zeros(11, tick_dtype(2))
    ticks["tick_time"], ticks["seq"] = np.arange(11), np.arange(50, 61)
    origin = Origin(TOPIC_ID, 7, 50, 1)
    state = EntityState(origin, 3, 6, count=11, fill=1, ticks=ticks)
    below = EntityState(origin, 1, 1, count=38, fill=1, ticks=ticks[:1], first_block=2)
    row = pack(Row(258, 6, 3, 99, origin, b"\0\2", (1.25, float("nan"))))
    packed = f"{ID}00000007000000000000003200000001"
    for replaced, expected, dropped in (
        (None, "", []),
        (below, f"{packed}0000000000000026", ["P1\x1fA\x1f#3", "P1\x1fA\x1f#4"]),
    ):
        call = WriteCall("position", 0)
        call.add(restored_write(Restored("P1\x1fA", state, row), replaced))
        assert call.keys == KEYS[:5]
        assert shown(call.arguments) == [
            *("P1\x1fA", expected),
            f"0100000102000000000000000600000000000000030000000000000063{packed}0002"
            "3ff40000000000007ff8000000000000",
            f"{packed}000000000000000b00000000000000030000000000000006"
            f"00000001000000000000000002030000{ticks[8:].tobytes().hex()}",
            *(1, "P1\x1fA\x1f#1", ticks[:8].tobytes().hex()),
            *(len(dropped), *dropped, "A", ""),
        ]
