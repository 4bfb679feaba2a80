"""Searches over HTTP, answered by a real Postgres."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from registry.database.engine import connect


def test_features_are_found_by_name_word_and_with_typing_errors(client: TestClient) -> None:
    for asked, first, match in (
        ("price_sma_5", "price_sma_5", "name"),
        ("Volatility", "price_volatility", "alias"),
        ("price_v", "price_volatility", "beginning"),
        ("exposure gross", "portfolio_exposure", "words"),
        ("volatilty", "price_volatility", "words"),
    ):
        answer = client.get("/features/search", params={"q": asked})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["features"][0]["name"], found["features"][0]["match"]) == (first, match)
        assert found["features"][0]["description"]
        assert found["forgives_typing"] is True


def test_pages_follow_one_another(client: TestClient) -> None:
    whole = client.get("/features/search?q=price&limit=100").json()
    assert whole["next"] is None
    names: list[str] = []
    asked = "/features/search?q=price&limit=2"
    while True:
        page = client.get(asked + (f"&after={names[-1]}" if names else "")).json()
        names += [feature["name"] for feature in page["features"]]
        if page["next"] is None:
            break
        assert page["next"] == names[-1]
    assert names == [feature["name"] for feature in whole["features"]]
    assert len(names) == len(set(names)) > 4


@pytest.mark.parametrize("asked", ["", "%00", "!%26%7C:*", "'", "%F0%9F%90%82", "%FF", "xyzzy"])
def test_what_names_nothing_finds_nothing(client: TestClient, asked: str) -> None:
    answer = client.get(f"/features/search?q={asked}")
    assert answer.status_code == 200
    assert answer.json() == {
        "features": [],
        "next": None,
        "taken_for": {},
        "forgives_typing": True,
    }


def test_without_trigrams_it_is_said_that_no_typing_error_is_forgiven(
    client: TestClient, postgres_database: str
) -> None:
    engine = connect(postgres_database)
    with engine.begin() as connection:
        connection.execute(text("DROP EXTENSION pg_trgm"))
    engine.dispose()
    assert client.get("/features/search?q=volatilty").json()["features"] == []
    found = client.get("/features/search?q=volatility").json()
    assert found["features"]
    assert found["forgives_typing"] is False


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("", "say what to look for"),
        ("?limit=3", "say what to look for"),
        ("?q=a&q=b", "each once"),
        ("?q=a&tag=b", "and nothing else"),
        (f"?q={'a' * 201}", "at most 200"),
        (f"?q={'+'.join('abcdefghijklmnopq')}", "at most 16"),
        ("?q=a&limit=0", "1 to 100"),
        ("?q=a&limit=101", "1 to 100"),
        ("?q=a&limit=-1", "1 to 100"),
        ("?q=a&limit=9999999999999999999", "1 to 100"),
        ("?q=a&after=%27", "the `next` of the page before"),
        ("?q=price&after=position_size", "begin with the first page"),
    ],
)
def test_what_cannot_be_answered_is_refused(client: TestClient, query: str, told: str) -> None:
    answer = client.get(f"/features/search{query}")
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


def test_a_database_that_is_not_migrated_is_said_so(
    client: TestClient, postgres_database: str
) -> None:
    engine = connect(postgres_database)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE tickwell.search_words"))
    engine.dispose()
    answer = client.get("/features/search?q=price")
    assert answer.status_code == 503
    assert "tickwell migrate" in answer.json()["detail"]
