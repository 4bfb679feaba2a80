"""What a search finds features by, kept up to date by whoever records them.

A feature's document has the words of its name, aliases, tags, description, owner, source and topic,
and the fields and functions of its expressions, of all its versions. Text is split into words here,
of documents and of questions alike: into runs of letters and runs of digits, whatever stands
between them. So `price_sma_5`, `price-sma-5` and `trades/price_sma_5` have the same words at their
ends, and a sign is none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple
from unicodedata import normalize

from sqlalchemy import Connection, cast, delete, select
from sqlalchemy.dialects.postgresql import TSVECTOR, insert
from sqlalchemy.sql.expression import bindparam

from registry.database.tables import search_documents, search_words
from registry.definitions import Catalog, FeatureVersion

WORD = re.compile(r"[^\W\d_]+|\d+")
IDENTIFIER = re.compile(r"\b[A-Za-z_]\w*")
WORD_CHARACTERS = 100
"""Characters of a word that count: Postgres takes 2,046 bytes."""

DOCUMENT_WORDS = 2_000
"""Different words of a document that count, the most important first."""


class _Document(NamedTuple):
    aliases: list[str]
    description: str
    text: str
    """A tsvector as Postgres writes it."""
    words: frozenset[str]

    @property
    def digest(self) -> bytes:
        said = "\0".join((*self.aliases, self.description, self.text))
        return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def update_search(
    connection: Connection, catalog: Catalog, only: Collection[str] | None = None
) -> None:
    """Bring what a search finds to `catalog`, in the transaction that records it.

    With `only` these features alone have changed, and not by a word. Only documents that have
    changed are written. The caller holds the lock of recordings.
    """
    documents = _documents(catalog, only)
    table = search_documents.c
    stored = select(table.name, table.digest)
    if only is not None:
        stored = stored.where(table.name.in_(only))
    known = {row.name: bytes(row.digest) for row in connection.execute(stored)}
    changed = [
        {
            "name": name,
            "aliases": document.aliases,
            "description": document.description,
            "text": document.text,
            "digest": document.digest,
        }
        for name, document in documents.items()
        if known.get(name) != document.digest
    ]
    if changed:
        given = insert(search_documents).values(document=cast(bindparam("text"), TSVECTOR))
        columns = ("aliases", "description", "document", "digest")
        written = given.on_conflict_do_update(
            index_elements=[table.name],
            set_={column: given.excluded[column] for column in columns},
        )
        connection.execute(written, changed)
    if gone := known.keys() - documents.keys():
        connection.execute(delete(search_documents).where(table.name.in_(gone)))
    if only is None and (changed or gone):
        _update_words(connection, frozenset().union(*(one.words for one in documents.values())))


def _update_words(connection: Connection, words: frozenset[str]) -> None:
    word = search_words.c.word
    known = set(connection.execute(select(word)).scalars())
    if new := words - known:
        connection.execute(insert(search_words), [{"word": one} for one in sorted(new)])
    if gone := known - words:
        connection.execute(delete(search_words).where(word.in_(gone)))


def _documents(catalog: Catalog, only: Collection[str] | None) -> dict[str, _Document]:
    versions: dict[str, list[FeatureVersion]] = {}
    for version in catalog.features.values():
        if only is None or version.name in only:
            versions.setdefault(version.name, []).append(version)
    return {name: _document(catalog, name, found) for name, found in versions.items()}


def _document(catalog: Catalog, name: str, versions: Sequence[FeatureVersion]) -> _Document:
    """The document of a feature; how much a word counts is by where it stands, A the most."""
    active = f"{name}@{catalog.active.get(name)}"
    shown = next((each for each in versions if each.ref == active), versions[-1])
    aliases = sorted({alias for each in versions for alias in each.aliases})
    parts: list[tuple[str, Iterable[str]]] = [("A", (name, *aliases))]
    for each in versions:
        sources = [one for one in (each.source, each.over) if one is not None]
        topics = [catalog.sources[one].topic for one in sources if one in catalog.sources]
        parts += [
            ("B", each.tags),
            ("C", (each.description, each.owner, *sources, *topics)),
            ("D", IDENTIFIER.findall(each.expression)),
        ]
    weights: dict[str, str] = {}
    for weight, texts in sorted(parts, key=lambda part: part[0]):
        for text in texts:
            for word in words_of(text):
                weights.setdefault(word, weight)
    weighed = list(weights.items())[:DOCUMENT_WORDS]
    text = " ".join(f"'{word}':{number}{w}" for number, (word, w) in enumerate(weighed, 1))
    description = shown.description.replace("\0", "")
    return _Document(aliases, description, text, frozenset(word for word, _ in weighed))


def words_of(text: str) -> list[str]:
    """The words of a text, in their order."""
    return [word[:WORD_CHARACTERS] for word in WORD.findall(folded(text))]


def folded(text: str) -> str:
    """A text without the differences of case, width and composition."""
    return normalize("NFKC", normalize("NFKC", text).casefold())
