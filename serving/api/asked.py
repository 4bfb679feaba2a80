"""What requests ask, kept by their texts: most questions are asked again.

A question that is asked again is prepared, and found by the bytes that ask it: of a request about
one entity by the whole body, of a batch by that too, or by the text of its features and of each
entity. Whatever is kept was parsed strictly when it came first. It belongs to one catalog, and is
bounded in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

import msgspec

from registry.definitions import FeatureVersion
from registry.formats.status import Status
from serving.api.memo import Memo, TimeTexts
from serving.api.objects import ObjectsForm
from serving.api.parts import Part, parts_of
from serving.api.requests import MAX_ENTITIES, BatchRequest, OnlineRequest, parse
from serving.features.lookup import Kind, Names, check_entities
from serving.features.plan import Entity
from serving.features.prepared import PreparedQuestion, Uncommon
from serving.stores.row_store import NamedRows
from serving.usage import Read, Reads, Usage

KEPT_BYTES = 32_000_000
"""Bytes of all that is kept, about."""

LONGEST_KEPT = 1_024
"""Bytes of a text by which something is kept."""

BYTES_BESIDE_TEXT = 900
"""What is kept by a text takes so much beside it, about."""

TEXT = attrgetter("text")

BATCHES_PART = 8
"""Of what is kept, an eighth more may be taken by whole batches, which are then forgotten alone."""

LONGEST_BATCH_KEPT = 16_384
"""Bytes of the body of a batch that is kept as a whole."""

BATCH_BYTES, BATCH_ENTITY_BYTES = 900, 40
"""What a kept batch takes beside its body, and for each of its entities."""

QUESTION_BYTES, QUESTION_FEATURE_BYTES = 4_096, 1_024
"""What a question takes, and each feature in it, about: texts of each status are kept of it."""


class Question:
    """A prepared question, how its answers are written, and to whom they were given."""

    def __init__(self, prepared: PreparedQuestion, times: TimeTexts, reads: Reads) -> None:
        self.prepared = prepared
        self.reads = reads
        self.form = ObjectsForm(prepared, times)
        self.sources = [wanted.source for wanted in prepared.rows]
        self.topics = tuple([source.topic for source in self.sources])
        self.all_ok = [Status.OK] * len(prepared.slots)
        """The statuses of an answer about one entity, as a rule."""


class AskedEntity(NamedTuple):
    """An entity: as its answer names it, and as the store names its row in each source."""

    text: bytes
    names: tuple[bytes, ...]
    kind: int
    """The number of the question that is asked of it."""


class Questions:
    """What a list of features asks, in one question of each kind of entity that they are of.

    Raises as `Names.versions`, and `Uncommon`.
    """

    def __init__(
        self,
        names: Names,
        requested: Sequence[str],
        rows: NamedRows,
        times: TimeTexts,
        usage: Usage,
    ) -> None:
        self.requested = list(requested)
        self.versions = names.versions(requested)
        if names.tested(requested):  # what a name means depends on the entity
            raise Uncommon
        self.entities: dict[bytes, AskedEntity] = {}
        """By the texts that named them in batches, without their braces."""
        self._rows = rows
        of_kinds: dict[Kind, dict[str, FeatureVersion]] = {}
        for name, feature in self.versions.items():
            of_kinds.setdefault(frozenset(feature.entity), {})[name] = feature
        prepared = [PreparedQuestion(names, of, sorted(kind)) for kind, of in of_kinds.items()]
        self.each = [
            Question(one, times, usage.reads([version.ref for version in one.versions.values()]))
            for one in prepared
        ]
        self._numbers = {kind: number for number, kind in enumerate(of_kinds)}

    def asked_of(self, entity: Entity) -> AskedEntity:
        """An entity, of one of the kinds, as its question asks of it."""
        kind = self._numbers[frozenset(entity)]
        rows = self.each[kind].prepared.row_ids(entity)
        names = tuple([self._rows.name(row) for row in rows])
        return AskedEntity(msgspec.json.encode(entity), names, kind)

    def are_of(self, entities: Iterable[AskedEntity]) -> bool:
        """Whether each of the questions is asked of one of these entities."""
        count = len(self.each)
        return count == 1 or len({entity.kind for entity in entities}) == count


@dataclass(eq=False)
class Asked:
    """What a request asks; `questions` is None where it cannot be prepared."""

    names: Names
    features: Sequence[str]
    questions: Questions | None
    entities: Sequence[AskedEntity]

    @cached_property
    def answered(self) -> list[str]:
        """The names under which features are answered, in the order of the request."""
        return list(self.names.versions(self.features))

    @cached_property
    def texts(self) -> list[bytes]:
        """The entities as an answer names them."""
        return list(map(TEXT, self.entities))

    @cached_property
    def parts(self) -> list[Part]:
        """The parts of what is prepared, one for each kind of entity."""
        assert self.questions is not None
        return parts_of(self.questions, self.entities)

    @cached_property
    def reads(self) -> Sequence[Read]:
        """What the answer counts for; of what is prepared."""
        assert self.questions is not None
        each = self.questions.each
        if len(each) == 1:
            return ((each[0].reads, len(self.entities)),)
        return [(part.question.reads, len(part.entities)) for part in self.parts]

    @cached_property
    def wanted(self) -> list[tuple[str, Sequence[bytes]]]:
        """The rows that are wanted of each source, of one part after the other."""
        return [wanted for part in self.parts for wanted in part.wanted()]

    def plain_entities(self) -> list[Entity]:
        """The entities as the request named them."""
        return list(map(msgspec.json.decode, self.texts))


class _RawBatch(msgspec.Struct, forbid_unknown_fields=True):
    """A `BatchRequest` of which only the structure was read."""

    features: msgspec.Raw
    entities: list[msgspec.Raw]


_decode_raw = msgspec.json.Decoder(_RawBatch).decode


class AskedBefore:
    """Reads requests, and keeps about `most_bytes`.

    Without `rows` nothing is prepared, since the store has no such reads.
    """

    def __init__(
        self,
        rows: NamedRows | None,
        times: TimeTexts,
        most_bytes: int = KEPT_BYTES,
        usage: Usage | None = None,
    ) -> None:
        self._rows = rows
        self._usage = usage or Usage()
        self._times = times
        self._most_bytes = most_bytes
        self._names: Names | None = None
        self._forget()

    def one(self, names: Names, body: bytes) -> Asked:
        """What the body of an `OnlineRequest` asks.

        Raises `InvalidRequest`, `UnknownFeature` and `WrongEntity`.
        """
        self._of_catalog(names)
        asked = self._bodies.get(body)
        if asked is None:
            request = parse(body, OnlineRequest)
            asked = self._asked(names, request.features, [request.key()])
            if asked.questions is not None and self._has_room(body):
                self._bodies[body] = asked
        return asked

    def kept(self, names: Names, body: bytes) -> Asked | None:
        """The same of a body that is kept, None of any other one."""
        self._of_catalog(names)
        return self._bodies.get(body)

    def kept_batch(self, names: Names, body: bytes) -> Asked | None:
        """The same of a batch."""
        self._of_catalog(names)
        return self._batches.get(body)

    def batch(self, names: Names, body: bytes) -> Asked:
        """What the body of a `BatchRequest` asks. Raises as `one`."""
        self._of_catalog(names)
        asked = self._batches.get(body)
        if asked is None:
            asked = self._regular_batch(names, body) or self._known_batch(names, body)
            if asked is None:
                return self._new_batch(names, body)
            if len(body) <= LONGEST_BATCH_KEPT:
                size = len(body) + BATCH_BYTES + BATCH_ENTITY_BYTES * len(asked.entities)
                self._batches.keep(body, asked, size)
        return asked

    def parsed(self, names: Names, features: Sequence[str], entities: Sequence[Entity]) -> Asked:
        """What is asked by features and entities that are parsed already, all of one kind.

        Raises `UnknownFeature` and `WrongEntity`.
        """
        self._of_catalog(names)
        questions = self._questions_of(names, features)
        if questions is None:
            return self._asked(names, features, entities)
        check_entities(names, questions.versions, entities[:1])
        asked = [self._entity(questions, entity) for entity in entities]
        return Asked(names, questions.requested, questions, asked)

    def _entity(self, questions: Questions, entity: Entity) -> AskedEntity:
        text = msgspec.json.encode(entity)
        known = questions.entities.get(text[1:-1])
        if known is None:
            known = questions.asked_of(entity)
            if self._has_room(text):
                questions.entities[text[1:-1]] = known
        return known

    def _regular_batch(self, names: Names, body: bytes) -> Asked | None:
        """The same where the body is a known beginning, and known entities one after the other.

        Then there is no need to parse it: what these are parts of is known.
        """
        begin, pieces = _pieces(body)
        questions = self._begins.get(begin)
        if questions is None or not 0 < len(pieces) <= MAX_ENTITIES:
            return None
        try:
            entities = list(map(questions.entities.__getitem__, pieces))
        except KeyError:
            return None
        if not questions.are_of(entities):
            return None
        return Asked(names, questions.requested, questions, entities)

    def _known_batch(self, names: Names, body: bytes) -> Asked | None:
        """The same where all texts of the body are known."""
        once = body.count(b'"features"') == body.count(b'"entities"') == 1
        if not once or b"\\u" in body:
            return None  # a name that comes twice, however written, is for the strict parser
        try:
            raw = _decode_raw(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None  # the strict parser says what is wrong
        questions = self._of_batches.get(bytes(raw.features))
        if questions is None or not 0 < len(raw.entities) <= MAX_ENTITIES:
            return None
        known = questions.entities
        try:
            entities = [known[bytes(entity)[1:-1]] for entity in raw.entities]
        except KeyError:
            return None
        if not questions.are_of(entities):
            return None
        return Asked(names, questions.requested, questions, entities)

    def _new_batch(self, names: Names, body: bytes) -> Asked:
        request = parse(body, BatchRequest)
        asked = self._asked(names, request.features, request.entities)
        if asked.questions is not None:
            self._keep_batch(asked.questions, body, asked.entities)
        return asked

    def _keep_batch(
        self, questions: Questions, body: bytes, entities: Sequence[AskedEntity]
    ) -> None:
        raw = _decode_raw(body)
        features = bytes(raw.features)
        if features not in self._of_batches and not self._has_room(features):
            return  # no batch with these features would be found
        self._of_batches[features] = questions
        for text, entity in zip(map(bytes, raw.entities), entities, strict=True):
            if text[1:-1] not in questions.entities and self._has_room(text):
                questions.entities[text[1:-1]] = entity
        begin, _ = _pieces(body)
        if begin not in self._begins and _is_begin(begin) and self._has_room(begin):
            self._begins[begin] = questions

    def _asked(self, names: Names, features: Sequence[str], entities: Sequence[Entity]) -> Asked:
        questions = self._questions_of(names, features)
        if questions is None:
            asked = [AskedEntity(msgspec.json.encode(entity), (), 0) for entity in entities]
        else:
            check_entities(names, questions.versions, entities)
            asked = [questions.asked_of(entity) for entity in entities]
            features = questions.requested  # one list, however many ask
        return Asked(names, features, questions, asked)

    def _questions_of(self, names: Names, features: Sequence[str]) -> Questions | None:
        """The prepared questions, None where one cannot be prepared."""
        if self._rows is None:
            return None
        key = tuple(features)
        if key in self._questions:
            return self._questions[key]
        questions: Questions | None = None
        with suppress(Uncommon):
            questions = Questions(names, features, self._rows, self._times, self._usage)
        self._take(QUESTION_BYTES + QUESTION_FEATURE_BYTES * len(features))
        self._questions[key] = questions
        return questions

    def _of_catalog(self, names: Names) -> None:
        if names is not self._names:
            self._names = names
            self._forget()

    def _forget(self) -> None:
        self._bodies: dict[bytes, Asked] = {}
        self._questions: dict[tuple[str, ...], Questions | None] = {}
        self._of_batches: dict[bytes, Questions] = {}
        """By the text of the features in a batch."""
        self._batches = Memo[bytes, Asked](self._most_bytes // BATCHES_PART)
        """Batches of known entities by the whole body: some are asked again and again."""
        self._begins: dict[bytes, Questions] = {}
        """By what stands before the entities of a batch, where these come last."""
        self._bytes = 0

    def _has_room(self, text: bytes) -> bool:
        """Whether something is kept by a text; where there is no more room, all is forgotten."""
        if len(text) > LONGEST_KEPT:
            return False
        self._take(len(text) + BYTES_BESIDE_TEXT)
        return True

    def _take(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._most_bytes:
            self._forget()
            self._bytes = size


def _pieces(body: bytes) -> tuple[bytes, list[bytes]]:
    """What stands before the entities of a batch, and these as texts without their braces.

    None where the body does not end with them. It is not parsed: this is so only if the first is
    the beginning of a batch (`_is_begin`), and each text in braces is an object.
    """
    begin, _, rest = body.partition(b"[{")
    if not rest.endswith(b"}]}"):
        return begin, []
    between = b"}, {" if b"}, {" in rest else b"},{"
    return begin, rest[:-3].split(between)


def _is_begin(text: bytes) -> bool:
    """Whether a batch that begins so goes on with the list of its entities, and then ends."""
    try:
        return not _decode_raw(text + b"[]}").entities
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
