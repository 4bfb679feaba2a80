"""A search over all features, beside an oracle in plain Python."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from registry.definitions import Catalog, FeatureVersion
from registry.errors import InvalidSearch
from registry.features_file import read
from registry.lifecycle.recording import record
from registry.lifecycle.search import MATCHES, Page, search
from registry.lifecycle.search_documents import update_search
from tests.support.served import catalog_of

SHIPPED = catalog_of(read())
VOCABULARY = (
    *("price", "volume", "sma", "mean", "spread", "returns", "bid", "ask", "depth", "vola"),
    *("mid", "momentum", "cross"),
)
DETAILS = ("Mean of the last ticks", "Risk desk, 5m", "Überhang", "bid/ask.depth-10", "")


def features(count: int = 120, seed: int = 7) -> dict[str, FeatureVersion]:
    """Features of names that have much in common."""
    chosen = random.Random(seed)
    found = {}
    while len(found) < count:
        parts = [*chosen.sample(VOCABULARY, chosen.randint(1, 3))]
        parts += chosen.choice([[], [str(chosen.choice([5, 50, 20]))]])
        name = "_".join(parts)
        found[name] = FeatureVersion(
            name=name,
            version="1.0.0",
            entity=("symbol",),
            expression=chosen.choice(["mean(price, 5)", "last(size)", "stddev(price, 20)"]),
            source="price",
            description=chosen.choice(DETAILS),
            owner=chosen.choice(["ann", "desk-two"]),
            tags=tuple(chosen.sample(["risk", "fast", "eod.close"], chosen.randint(0, 2))),
            aliases=(f"the_{name}",) if chosen.random() < 0.2 else (),
        )
    return found


FEATURES = features()
CATALOG = msgspec.structs.replace(
    SHIPPED,
    features={feature.ref: feature for feature in FEATURES.values()},
    active=dict.fromkeys(FEATURES, "1.0.0"),
)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as made:
        update_search(made, CATALOG)
        yield made


def split(said: str) -> list[str]:
    return re.findall(r"[a-zà-ÿ]+|[0-9]+", said.lower())


def said_of(feature: FeatureVersion) -> set[str]:
    topic = SHIPPED.sources["price"].topic
    expression = re.findall(r"[a-z_]+", feature.expression)
    texts = [feature.name, feature.description, feature.owner, "price", topic]
    texts += [*feature.tags, *feature.aliases, *expression]
    return {word for one in texts for word in split(one)}


def match_of(feature: FeatureVersion, asked: str) -> int | None:
    """By what a feature is found, an index of `MATCHES`; None where it is not."""
    words, said = list(dict.fromkeys(split(asked))), said_of(feature)
    for number, word in enumerate(words):
        is_whole = word.isdigit() and number < len(words) - 1
        if not any(one == word if is_whole else one.startswith(word) for one in said):
            return None
    joined, lower = "_".join(words), asked.lower().strip()
    begin = lower if re.fullmatch("[a-z][a-z0-9_]*", lower) else joined
    if feature.name in (joined, begin):
        return 0
    if {joined, begin} & set(feature.aliases):
        return 1
    if feature.name.startswith(begin):
        return 2
    return 3 if set(words) <= said else 4


def every_page(connection: Connection, asked: str, limit: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    after: str | None = None
    for _ in itertools.count():
        page = search(connection, asked, limit, after)
        assert len(page.features) <= limit
        found += [(hit.name, MATCHES.index(hit.match)) for hit in page.features]
        if page.next is None:
            return found
        assert page.next == found[-1][0]
        after = page.next
    raise AssertionError


WORDS = sorted({word for feature in FEATURES.values() for word in said_of(feature)})
BEGINNINGS = [word[:length] for word in WORDS for length in range(1, len(word) + 1)]
SEPARATORS = st.sampled_from([" ", "_", ".", "/", "-", "@ ", " & ", "  |!", "':*", "\0"])
QUESTIONS = st.one_of(
    st.sampled_from(sorted(FEATURES)),
    st.sampled_from([f"the_{name}" for name in FEATURES]),
    st.sampled_from(sorted(FEATURES)).map(lambda name: name[: len(name) // 2 + 1].upper()),
    st.builds(
        lambda words, separator: separator.join(words),
        st.lists(st.sampled_from(BEGINNINGS), min_size=1, max_size=3),
        SEPARATORS,
    ),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(QUESTIONS, st.sampled_from([3, 100]))
def test_what_is_found_and_what_is_first(connection: Connection, asked: str, limit: int) -> None:
    """All that an oracle finds, each once, the names first, whatever the pages."""
    expected = {
        name: match
        for name, feature in FEATURES.items()
        if (match := match_of(feature, asked)) is not None
    }
    found = every_page(connection, asked, limit)
    if not expected and search(connection, asked).taken_for:
        return  # a word that is in no document was taken for others
    assert len(found) == len({name for name, _ in found})
    assert dict(found) == expected
    assert [match for _, match in found] == sorted(expected.values())


def typing_errors(word: str) -> set[str]:
    """Each letter but the first left out, doubled, and changed places with the next one."""
    made = set()
    for index in range(1, len(word) - 1):
        made.add(word[:index] + word[index + 1 :])
        made.add(word[:index] + word[index] + word[index:])
        made.add(word[:index] + word[index + 1] + word[index] + word[index + 2 :])
    return {one for one in made if not any(known.startswith(one) for known in WORDS)}


@pytest.mark.parametrize("word", [word for word in WORDS if len(word) >= 5 and word.isascii()])
def test_typing_errors_are_forgiven(connection: Connection, word: str) -> None:
    expected = [hit for hit in search(connection, word, 100).features if hit.match != "beginnings"]
    for asked in sorted(typing_errors(word)):
        page = search(connection, asked, 100)
        assert word in page.taken_for[asked], asked
        assert {hit.name for hit in expected} <= {hit.name for hit in page.features}
    assert page.forgives_typing


def test_without_trigrams_no_typing_error_is_forgiven_and_that_is_said(
    connection: Connection,
) -> None:
    connection.execute(text("DROP EXTENSION pg_trgm"))
    assert search(connection, "moemntum") == Page([], None, {}, forgives_typing=False)
    assert search(connection, "!").forgives_typing is False
    found = search(connection, "momentum", 100)
    assert found.features
    assert not found.forgives_typing


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=210) | st.text("'\\&|!:*()<->\0 @ab5", max_size=60))
def test_any_text_is_answered_or_refused_in_words(connection: Connection, asked: str) -> None:
    is_too_long = len(asked) > 200
    with pytest.raises(InvalidSearch) if is_too_long else suppress(InvalidSearch):
        page = search(connection, asked)
        assert page.features == [] or re.search(r"[^\W_]", asked)
    assert connection.execute(text("SELECT 1")).scalar() == 1


@pytest.mark.parametrize(
    ("asked", "limit", "after"),
    [
        ("a" * 201, 20, None),
        (" ".join("abcdefghijklmnopq"), 20, None),
        ("price", 0, None),
        ("price", 101, None),
        ("price", 20, "'; --"),
        ("price", 20, "not_there"),
    ],
)
def test_what_is_too_much_or_of_no_search_is_refused(
    connection: Connection, asked: str, limit: int, after: str | None
) -> None:
    with pytest.raises(InvalidSearch):
        search(connection, asked, limit, after)


def test_a_pin_asks_for_its_feature(connection: Connection) -> None:
    name = sorted(FEATURES)[0]
    assert search(connection, f"{name}@1.0.0").features[0].name == name


def written(connection: Connection) -> dict[str, str]:
    rows = connection.execute(text("SELECT name, xmin::text FROM tickwell.search_documents"))
    return {row.name: row.xmin for row in rows}


def test_only_documents_that_changed_are_written(engine: Engine) -> None:
    def bring(catalog: Catalog) -> dict[str, str]:
        with engine.begin() as connection:
            update_search(connection, catalog)
            return written(connection)

    before = bring(CATALOG)
    assert bring(CATALOG) == before
    one, gone = sorted(FEATURES)[:2]
    reworded = msgspec.structs.replace(FEATURES[one], description="Zeppelins")
    kept = {ref: each for ref, each in CATALOG.features.items() if each.name != gone}
    after = bring(msgspec.structs.replace(CATALOG, features=kept | {reworded.ref: reworded}))
    assert {name for name, when in before.items() if after.get(name) != when} == {one, gone}
    assert gone not in after
    with engine.connect() as connection:
        (hit,) = search(connection, "zepelin").features
        assert (hit.name, hit.description) == (one, "Zeppelins")
    bring(CATALOG)
    with engine.connect() as connection:
        assert search(connection, "zeppelins").features == []


def test_what_is_recorded_is_found(engine: Engine) -> None:
    record(engine, read(), "ann")
    with engine.connect() as connection:
        assert [hit.name for hit in search(connection, "Volatility").features] == [
            "price_volatility"
        ]
        assert search(connection, "ticks.position size").features[0].name == "position_size"
