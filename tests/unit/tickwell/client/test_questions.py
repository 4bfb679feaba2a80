"""What is asked, and how errors are read."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.api.problems import PROBLEMS, document_of
from serving.api.requests import MAX_BODY_BYTES, MAX_ENTITIES, BatchRequest, OnlineRequest, parse
from serving.errors import ServingError
from tickwell.client import questions
from tickwell.client.errors import KINDS, ProblemAnswer, kind_of

ENTITIES = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.text('aä"\\', min_size=1, max_size=255),
    min_size=1,
    max_size=8,
)


@settings(max_examples=30)
@example(["f"], [{"symbol": "A"}], 1_001)
@given(
    st.lists(st.text("fgh", min_size=1, max_size=128), min_size=1, max_size=20),
    st.lists(ENTITIES, max_size=30),
    st.integers(1, 60),
)
def test_parts_are_within_the_limits_of_the_server_and_are_all_that_was_asked(
    features: list[str], entities: list[dict[str, str]], times: int
) -> None:
    wanted = entities * times
    parts = list(questions.batch(features, wanted))
    asked = [msgspec.json.decode(part.body, type=BatchRequest) for part in parts]
    assert [entity for one in asked for entity in one.entities] == wanted
    for part, one in zip(parts, asked, strict=True):
        assert one.features == list(dict.fromkeys(features))
        assert len(part.body) <= MAX_BODY_BYTES
        assert len(one.entities) <= MAX_ENTITIES
    for before, after in pairwise(parts):  # no smaller than need be
        first = msgspec.json.encode(msgspec.json.decode(after.body, type=BatchRequest).entities[0])
        entities_before = msgspec.json.decode(before.body, type=BatchRequest).entities
        is_full = len(entities_before) == MAX_ENTITIES
        assert is_full or len(before.body) + len(first) + 1 > MAX_BODY_BYTES


def test_the_server_takes_what_is_asked() -> None:
    by_value = questions.online(["f"], "symbol", "A", None)
    by_key = questions.online(["f"], None, None, {"portfolio": "P", "symbol": "A"})
    assert parse(by_value.body, OnlineRequest).key() == {"symbol": "A"}
    assert parse(by_key.body, OnlineRequest).key() == {"portfolio": "P", "symbol": "A"}


@pytest.mark.parametrize("kind", PROBLEMS, ids=lambda kind: kind.__name__)
def test_every_kind_of_problem_has_a_class(kind: type[ServingError]) -> None:
    """And the server's own words and values come through."""
    response = document_of(kind("what to do", feature="f"), {})
    answer = questions.Answer(response.status_code, response.headers, bytes(response.body))
    error = questions.problem_of(answer)
    assert isinstance(error, ProblemAnswer)
    assert type(error) is not ProblemAnswer
    assert (error.detail, error.status) == ("what to do", response.status_code)
    assert error.context == {"feature": "f"}
    assert str(error).startswith("what to do")
    assert "what to do" in str(error)


def test_a_title_is_of_one_class_and_an_unknown_one_goes_by_its_status() -> None:
    titles = [title for kind in KINDS for title in kind.titles]
    assert len(titles) == len(set(titles))
    statuses = [status for kind in KINDS for status in kind.statuses]
    assert len(statuses) == len(set(statuses))
    assert kind_of(503, "of a newer server").__name__ == "NotReady"
    assert kind_of(418, "of a newer server") is ProblemAnswer


@pytest.mark.parametrize(
    ("header", "seconds"), [("3", 3.0), ("0", 0.0), (None, None), ("Mon, 30 Nov 2026", None)]
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    headers = {} if header is None else {"Retry-After": header}
    answer = questions.Answer(503, headers, b'{"title": "Not ready"}')
    error = questions.problem_of(answer)
    assert isinstance(error, ProblemAnswer)
    assert error.retry_after_seconds == seconds


def test_names_of_features_are_quoted() -> None:
    assert questions.feature("price_sma_5@1.0.0").path == "/features/price_sma_5@1.0.0"
    assert questions.feature("a/b?").path == "/features/a%2Fb%3F"
    assert questions.features(["portfolio", "symbol"], ["a&b", "c"]).path == (
        "/features?entity=portfolio%2Csymbol&tag=a%26b&tag=c"
    )
    assert questions.features((), ()).path == "/features"
