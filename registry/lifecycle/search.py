"""Search over all features: their names first, then all that is said of them.

A question is split into words as documents are (`registry.lifecycle.search_documents`), and all of
them must be in a document. Each may be the beginning of a word there, but a number before the last
word is meant as it is.

Order: the name that is asked for, then an alias, names that begin with the text, documents with
all words as they are, the rest; within these by Postgres' rank, in which a name counts most, and
then by name.

A word that no document has is taken for the words most like it, where Postgres has `pg_trgm`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import Connection

from registry.errors import InvalidSearch
from registry.lifecycle.search_documents import folded, words_of
from registry.naming import NAME
from registry.resources import sql

SEARCH_WORDS, SEARCH_PAGE = sql(__package__, "search_words"), sql(__package__, "search_page")

LONGEST = 200
"""Characters of a question."""

MOST_WORDS = 16
"""Different words of a question."""

MOST_FEATURES = 100
"""Features of a page."""

VERSION = re.compile(r"@[0-9.]*(?=\s|$)")
"""The version of a pin, which no document has: `price_sma_5@1.0.0` asks for the feature."""

LIKE_ENOUGH = 0.7
"""Share of the characters of two words that agree, in their order, as `difflib` counts it."""

MOST_LIKE = 3
"""Words that one with a typing error is taken for."""

MATCHES = ("name", "alias", "beginning", "words", "beginnings")


class Hit(Struct):
    """A feature that was found; `match` says by what: `name`, `alias`, `beginning`, `words` ...

    Of `beginnings` its words only begin with those that were asked for.
    """

    name: str
    description: str
    match: str


class Page(Struct):
    """Features in the order of a search, the best first; `next` is what the next page is after.

    `taken_for` has the words that no document has, and those that they were taken for.
    `forgives_typing` is false where Postgres lacks `pg_trgm`: then there are none.
    """

    features: list[Hit]
    next: str | None
    taken_for: dict[str, list[str]]
    forgives_typing: bool


class Question(NamedTuple):
    """A question that was checked; its words are in the order in which they were asked."""

    text: str
    words: tuple[str, ...]
    limit: int
    after: str | None


class Likeness(NamedTuple):
    """What is known of the words of a question."""

    taken_for: dict[str, list[str]]
    forgives_typing: bool


def search(connection: Connection, text: str, limit: int = 20, after: str | None = None) -> Page:
    """A page of the features that a text finds; `after` is the last one of the page before.

    Raises `InvalidSearch`.
    """
    question = question_of(text, limit, after)
    known = connection.exec_driver_sql(SEARCH_WORDS, words_asked(question)).all()
    likeness = likeness_of(known)
    if not question.words:
        return nothing(likeness)
    found = connection.exec_driver_sql(SEARCH_PAGE, page_asked(question, likeness)).all()
    return page_of(question, likeness, found)


# ---------------------------------------------------------------- the steps of a search


def question_of(text: str, limit: int, after: str | None) -> Question:
    """A question as it is asked. Raises `InvalidSearch`."""
    if len(text) > LONGEST:
        raise InvalidSearch(f"the text has {len(text)} characters: ask with at most {LONGEST}")
    if not 1 <= limit <= MOST_FEATURES:
        raise InvalidSearch(f"a page has 1 to {MOST_FEATURES} features, and not {limit}")
    if after is not None and not NAME.fullmatch(after):
        raise InvalidSearch("a page is after a feature: give the `next` of the page before")
    text = VERSION.sub("", text)
    words = tuple(dict.fromkeys(words_of(text)))
    if len(words) > MOST_WORDS:
        raise InvalidSearch(f"the text has {len(words)} words: ask with at most {MOST_WORDS}")
    return Question(folded(text).strip(), words, limit, after)


def words_asked(question: Question) -> dict[str, Any]:
    """The parameters of `SEARCH_WORDS`."""
    return {"words": [*question.words, ""]}


def likeness_of(rows: Iterable[Sequence[Any]]) -> Likeness:
    """What the rows of `SEARCH_WORDS` say."""
    known = list(rows)
    taken_for = {
        word: [] if word.isdigit() else _most_like(word, similar or ())
        for word, is_known, similar, _ in known
        if word and not is_known
    }
    return Likeness(taken_for, all(forgives for *_, forgives in known))


def page_asked(question: Question, likeness: Likeness) -> dict[str, Any]:
    """The parameters of `SEARCH_PAGE`."""
    joined = "_".join(question.words)
    begin = question.text if NAME.fullmatch(question.text) else joined
    parts, whole = [], []
    for number, word in enumerate(question.words, 1):
        similar = likeness.taken_for.get(word)
        if similar is None:
            is_meant_so = word.isdigit() and number < len(question.words)
            parts.append(f"'{word}'" if is_meant_so else f"'{word}':*")
            whole.append(f"'{word}'")
        else:
            # What is like nothing is looked for all the same, and not found.
            either = " | ".join(f"'{one}'" for one in similar or [word])
            parts.append(f"({either})")
            whole.append(f"({either})")
    return {
        "names": [begin, joined],
        "begin": begin,
        "query": " & ".join(parts),
        "whole": " & ".join(whole),
        "after": question.after,
        "most": question.limit + 1 + (question.after is not None),
    }


def page_of(question: Question, likeness: Likeness, rows: Sequence[Sequence[Any]]) -> Page:
    """The answer that the rows of `SEARCH_PAGE` make. Raises `InvalidSearch`."""
    if question.after is not None:
        if not rows or rows[0][0] != question.after:
            raise InvalidSearch(
                f"this search finds no {question.after}, which the page is to be after: features "
                "have changed meanwhile, or the text has; begin with the first page"
            )
        rows = rows[1:]
    hits = [Hit(name, description, MATCHES[match]) for name, description, match in rows]
    more = hits[: question.limit]
    following = more[-1].name if len(hits) > len(more) else None
    taken_for = {word: similar for word, similar in likeness.taken_for.items() if similar}
    return Page(more, following, taken_for, likeness.forgives_typing)


def nothing(likeness: Likeness) -> Page:
    """The answer to a text without a word."""
    return Page([], None, {}, likeness.forgives_typing)


def _most_like(word: str, similar: Iterable[str]) -> list[str]:
    matcher = SequenceMatcher(b=word, autojunk=False)
    likes = []
    for one in similar:
        matcher.set_seq1(one)
        likes.append((-matcher.ratio(), one))
    return [one for like, one in sorted(likes)[:MOST_LIKE] if -like >= LIKE_ENOUGH]
