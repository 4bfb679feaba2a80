"""Training sets that are asked for wrongly, or by a client that goes away: what others have of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from tests.support.rebuilds import Stores
from tests.support.training_sets import FEATURES, Made, in_json, making
from tickwell import Client
from tickwell.client.errors import ProblemAnswer


@pytest.fixture
def made(stores: Stores, hot_redis: str) -> Iterator[Made]:
    with making(stores, hot_redis) as found:
        yield found


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("0001-01-01T00:00:00Z", "1970"),
        ("0001-01-01T00:00:00+14:00", "1970"),
        ("9999-12-31T23:59:59-14:00", "a second ago"),
        ("2100-01-01T00:00:00Z", "a second ago"),
    ],
)
def test_what_is_known_by_no_moment_of_the_past(made: Made, known: str, said: str) -> None:
    """What is known by a moment that is to come would be another thing each time it is asked."""
    url = f"{made.url}/features/offline"
    sent = httpx.post(url, json=in_json(made, as_known_at=known), timeout=60)
    assert (sent.status_code, said in sent.json()["detail"]) == (422, True), sent.text
    with Client(made.url, deadline_seconds=60) as client:
        to_come = datetime(2100, 1, 1, tzinfo=UTC)
        with pytest.raises(ProblemAnswer, match="a second ago"):
            client.get_offline_features(FEATURES, made.arrow(), "at", as_known_at=to_come)
