"""Reads as commands, and answers as those of reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serving.stores.redis_reads import MAX_ROWS
from serving.stores.resp import bulk, packed
from serving.stores.row_batch import KEYS, Read, RowBatch, WrongAnswer
from serving.stores.row_store import UNAVAILABLE
from tests.support.apps import in_a_loop


def reads(*wanted: Any) -> list[Read]:
    loop = asyncio.get_running_loop()
    return [
        Read(
            [(bulk(key), [bulk(str(field)) for field in fields]) for key, fields in one.items()],
            loop.create_future(),
        )
        for one in wanted
    ]


@in_a_loop
async def test_a_command_names_so_many_fields_and_no_more() -> None:
    """Of the fields of several reads as of one's; the values of all come together again."""
    half, most = range(MAX_ROWS // 2), range(MAX_ROWS)
    asked = reads({"g": half, "h": most}, {"h": range(MAX_ROWS, 2 * MAX_ROWS + 1)})
    batch = RowBatch(asked)
    named = [("g", half), ("h", most), ("h", range(MAX_ROWS, 2 * MAX_ROWS)), ("h", [2 * MAX_ROWS])]
    assert batch.sizes == [len(fields) for _, fields in named]
    assert batch.packed() == b"".join(
        packed(["HMGET", key, *map(str, fields)]) for key, fields in named
    )
    answers: list[list[Any]] = [[b"%d" % field for field in fields] for _, fields in named]
    assert [batch.take(answer) for answer in answers] == [False, False, False, True]
    assert asked[0].found.result() == answers[:2]
    assert asked[1].found.result() == [answers[2] + answers[3]]


@in_a_loop
async def test_each_hash_has_the_values_of_its_own_answers() -> None:
    asked = reads({"g": "ab", "h": "ab"}, {"h": "ba"})
    batch = RowBatch(asked)
    assert not batch.take([b"1", None])
    assert not asked[0].found.done()
    assert batch.take([b"2", b"3"])
    assert asked[0].found.result() == [[b"1", None], [b"2", b"3"]]
    assert asked[1].found.result() == [[b"3", b"2"]]


@in_a_loop
async def test_keys_are_one_command_beside_those_of_hashes() -> None:
    loop = asyncio.get_running_loop()
    keys, fields = [bulk("a"), bulk("b")], [bulk("f")]
    asked = [
        Read([(KEYS, keys[:1])], loop.create_future()),
        Read([(bulk("h"), fields), (KEYS, keys)], loop.create_future()),
    ]
    batch = RowBatch(asked)
    assert batch.packed() == packed(["MGET", "a", "b"]) + packed(["HMGET", "h", "f"])
    assert [batch.take([b"1", None]), batch.take([b"2"])] == [False, True]
    assert [read.found.result() for read in asked] == [[[b"1"]], [[b"2"], [b"1", None]]]


@pytest.mark.parametrize("answer", [[], [b"1"], [b"1", b"2", b"3"], (b"1", b"2"), b"12", None, 2])
@in_a_loop
async def test_an_answer_to_another_question_is_told(answer: Any) -> None:
    batch = RowBatch(reads({"h": "ab"}))
    with pytest.raises(WrongAnswer, match="2 fields"):
        batch.take(answer)
    batch.fail()


@in_a_loop
async def test_all_that_were_not_told_are_told_that_it_failed() -> None:
    asked = reads({"h": "a"}, {"h": "b"})
    asked[0].found.cancel()
    RowBatch(asked).fail()
    assert asked[0].found.cancelled()
    assert asked[1].found.result() is UNAVAILABLE


def test_bulk_strings() -> None:
    assert bulk("abc") == bulk(b"abc") == b"$3\r\nabc\r\n"
    assert bulk("ü") == "$2\r\nü\r\n".encode()
    assert packed(["GET", b"\r\n"]) == b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n"
