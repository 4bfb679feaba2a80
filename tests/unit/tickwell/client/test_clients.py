"""Both clients against a small real server: what they send, try again, give up, and tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from tests.support.askers import BRIEF, KEY, Asker, one
from tests.support.scripted_http import (
    VALUE,
    Script,
    answers,
    answers_and_closes,
    drips,
    drips_the_head,
    hangs,
    problem,
    resets,
)
from tickwell import AsyncClient
from tickwell.client.calls import Retries
from tickwell.client.errors import (
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    KeyRefused,
    NoTickwellServer,
    NotReady,
    UnknownFeature,
)
from tickwell.errors import SettingError

FULL = problem(503, "Too busy", headers={"Retry_After": "0", "X_Request_Id": "r-1"})


def test_a_request_says_who_asks_what_and_until_when(
    asker: Asker, serve: Callable[..., str]
) -> None:
    script = Script(answers())
    client = asker.open(serve(script) + "/under/", api_key=KEY)
    assert one(asker, client, deadline_seconds=7.0)["f"].value == 1.5
    sent = script.requests[0]
    assert (sent.method, sent.path) == ("POST", "/under/features/online")
    assert msgspec.json.decode(sent.body) == {"features": ["f"], "entity": {"symbol": "A"}}
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["user-agent"].startswith("tickwell-python/")
    assert 0 < int(sent.headers["x-deadline-ms"]) <= 7000
    one(asker, client, deadline_seconds=3600)  # more than a server may be told
    assert script.requests[1].headers["x-deadline-ms"] == "60000"


def test_a_request_says_in_whose_name_it_reads(asker: Asker, serve: Callable[..., str]) -> None:
    script = Script(answers(), answers())
    one(asker, asker.open(serve(script), consumer="pricing-model"))
    one(asker, asker.open(serve(script)))
    assert [sent.headers.get("x-consumer") for sent in script.requests] == ["pricing-model", None]
    for name in ("", "a model", "a" * 65, "a\nb"):
        with pytest.raises(ValueError, match="consumer="):
            asker.open("http://127.0.0.1:1", consumer=name)


def test_connections_are_kept(asker: Asker, serve: Callable[..., str]) -> None:
    script = Script(answers(), problem(404, "Unknown feature"), answers())
    client = asker.open(serve(script))
    one(asker, client)
    with pytest.raises(UnknownFeature):
        one(asker, client)
    one(asker, client)
    assert (len(script.requests), script.connections) == (3, 1)


def test_a_kept_connection_that_was_closed_is_replaced(
    asker: Asker, serve: Callable[..., str]
) -> None:
    script = Script(answers_and_closes, answers())
    client = asker.open(serve(script))
    assert [one(asker, client)["f"].value for _ in range(2)] == [1.5, 1.5]
    assert script.connections == 2


@pytest.mark.parametrize("failure", [resets, FULL], ids=["reset", "503"])
def test_what_may_succeed_is_tried_again(
    asker: Asker, serve: Callable[..., str], failure: Any
) -> None:
    script = Script(failure, failure, answers())
    assert one(asker, asker.open(serve(script)))["f"].value == 1.5
    assert len(script.requests) == 3
    left = [int(sent.headers["x-deadline-ms"]) for sent in script.requests]
    assert left == sorted(left, reverse=True)  # of the whole call, and not of each attempt


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (problem(503, "Not ready"), NotReady),
        (problem(404, "Unknown feature", feature="f"), UnknownFeature),
        (problem(401, "No key"), KeyRefused),
    ],
)
def test_what_will_not_succeed_is_told_at_once(
    asker: Asker, serve: Callable[..., str], failure: Any, error: type[ClientError]
) -> None:
    script = Script(failure)
    with pytest.raises(error, match="why"):
        one(asker, asker.open(serve(script)))
    assert len(script.requests) == 1


def test_retries_end_with_what_the_server_says(asker: Asker, serve: Callable[..., str]) -> None:
    script = Script(FULL)
    with pytest.raises(NotReady) as raised:
        one(asker, asker.open(serve(script), retries=Retries(attempts=3)))
    assert len(script.requests) == 3
    error = raised.value
    assert (error.status, error.request_id, error.retry_after_seconds) == (503, "r-1", 0)
    assert "r-1" in str(error)


def test_a_server_in_trouble_gets_few_more_requests(
    asker: Asker, serve: Callable[..., str]
) -> None:
    script = Script(FULL)
    client = asker.open(serve(script), retries=Retries(share=0.1, reserve=2))
    for _ in range(20):
        with pytest.raises(NotReady):
            one(asker, client)
    assert len(script.requests) <= 20 + 2 + 0.1 * 20


@pytest.mark.parametrize("behaviour", [hangs, drips, drips_the_head])
def test_a_call_ends_with_its_deadline(
    asker: Asker, serve: Callable[..., str], behaviour: Any
) -> None:
    """Also while something comes all the time. The next call has another connection."""
    script = Script(behaviour, answers())
    client = asker.open(serve(script))
    with pytest.raises(DeadlineExceeded, match=rf"within {BRIEF} s.*deadline_seconds"):
        one(asker, client, deadline_seconds=BRIEF)
    assert one(asker, client)["f"].value == 1.5
    assert script.connections == 2


def test_a_server_asks_for_more_time_than_there_is(asker: Asker, serve: Callable[..., str]) -> None:
    """Then the call does not wait for what it will not see."""
    script = Script(problem(503, "Too busy", headers={"Retry_After": "3600"}))
    with pytest.raises(NotReady):
        one(asker, asker.open(serve(script)))
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    "behaviour",
    [
        answers(b"<html>"),
        answers({"features": 1}),
        answers(b"<html>", 502),
        answers(b"\xff", 404),
        answers(b"", 301, Location="http://127.0.0.1:1/"),
    ],
)
def test_who_answers_otherwise_is_no_server_of_ours(
    asker: Asker, serve: Callable[..., str], behaviour: Any
) -> None:
    """And is sent nothing more, wherever it points to."""
    script = Script(behaviour)
    with pytest.raises(NoTickwellServer, match="TICKWELL_URL"):
        one(asker, asker.open(serve(script), api_key=KEY))
    assert len(script.requests) == 1


def test_another_event_loop_is_told_of(serve: Callable[..., str]) -> None:
    client = AsyncClient(serve(Script(answers())), deadline_seconds=30.0)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(client.get_online_features(["f"], "symbol", "A"))
        with pytest.raises(ClientError, match="another event loop"):
            second.run(client.get_online_features(["f"], "symbol", "A"))
        first.run(client.close())


def test_nothing_listens(asker: Asker) -> None:
    with pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:1 .*TICKWELL_URL"):
        one(asker, asker.open("http://127.0.0.1:1"))


def test_health_of_a_server_that_is_not_well(asker: Asker, serve: Callable[..., str]) -> None:
    ill = {"status": "unavailable", "workers": {}}
    script = Script(answers(ill, 503), FULL, FULL, answers({"status": "ok"}))
    client = asker.open(serve(script))
    assert asker.call(client.health) == ill
    assert asker.call(client.health) == {"status": "ok"}


def test_which_features_there_are(asker: Asker, serve: Callable[..., str]) -> None:
    """What a newer server says beside it is passed over."""
    known = {"name": "f", "version": "1.0.0", "entity": ["symbol"], "tags": ["risk"], "new": 1}
    script = Script(answers({"features": [known]}), answers(known), answers({"features": 1}))
    client = asker.open(serve(script))
    (found,) = asker.call(client.features, ["symbol"], tags=["risk"])
    assert (found.name, found.entity, found.tags) == ("f", ("symbol",), ("risk",))
    assert asker.call(client.feature, "f@1.0.0") == found
    with pytest.raises(NoTickwellServer):
        asker.call(client.features)
    asked = ["/features?entity=symbol&tag=risk", "/features/f@1.0.0", "/features"]
    assert [sent.path for sent in script.requests] == asked


def test_a_key_is_shown_nowhere(asker: Asker, serve: Callable[..., str]) -> None:
    script = Script(problem(403, "No scope"), answers(b"?"), hangs)
    client = asker.open(serve(script), api_key=KEY)
    told = [repr(client), *(repr(value) for value in vars(client).values())]
    for _ in range(3):
        with pytest.raises(ClientError) as raised:
            one(asker, client, deadline_seconds=BRIEF)
        told += [str(raised.value), repr(raised.value)]
    with pytest.raises(SettingError) as error:
        asker.open("http://127.0.0.1:1", api_key=f"{KEY}\n")
    told.append(str(error.value))
    assert not [text for text in told if "SECRET" in text]


@pytest.mark.parametrize("features", ["f", "price_sma_5"])
def test_a_text_is_no_list_of_names(asker: Asker, features: str) -> None:
    client = asker.open("http://127.0.0.1:1")
    with pytest.raises(TypeError, match=features):
        asker.call(client.get_online_features, features, "symbol", "A")


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"entity_type": "symbol"},
        {"entity_type": "symbol", "entity": {"symbol": "A"}},
        {"entity_type": "symbol", "entity_value": "A", "entity": {"symbol": "A"}},
    ],
)
def test_an_entity_is_named_in_one_way(asker: Asker, named: dict[str, Any]) -> None:
    client = asker.open("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="entity_type='symbol'"):
        asker.call(client.get_online_features, ["f"], **named)


def numbers_asked_for(handler: Any) -> None:
    """The answer to a batch: of each entity its name as its value."""
    asked: dict[str, Sequence[Any]] = msgspec.json.decode(handler.sent.body)
    found = [
        {"entity": entity, "features": {"f": {**VALUE, "value": float(entity["symbol"])}}}
        for entity in asked["entities"]
    ]
    answers({"results": found})(handler)


def test_the_parts_of_a_batch_come_together_in_order(
    asker: Asker, serve: Callable[..., str]
) -> None:
    """Names of 20,000 characters make parts of a few entities, which are answered in JSON."""
    script = Script(numbers_asked_for)
    client = asker.open(serve(script))
    numbers = [float(f"{number}.{'0' * 20_000}1") for number in range(100)]
    entities = [{"symbol": f"{number}.{'0' * 20_000}1"} for number in range(100)]
    found = asker.call(client.get_batch_features, ["f"], entities)
    assert len(script.requests) > 3
    assert found.to_dict()["f"] == numbers
    assert [answer.entity for answer in found] == entities


def test_a_batch_of_nothing(asker: Asker) -> None:
    found = asker.call(asker.open("http://127.0.0.1:1").get_batch_features, ["f"], [])
    assert (len(found), found.to_dict()) == (0, {"f": [], "f.status": []})
    assert found.to_numpy().shape == (0, 1)


def test_the_first_error_ends_a_batch(asker: Asker, serve: Callable[..., str]) -> None:
    script = Script(numbers_asked_for, problem(404, "Unknown feature"))
    client = asker.open(serve(script))
    entities = [{"symbol": f"1.{'0' * 100_000}"}] * 20
    with pytest.raises(UnknownFeature):
        asker.call(client.get_batch_features, ["f"], entities)
    assert len(script.requests) < 10
