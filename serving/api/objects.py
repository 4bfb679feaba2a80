"""Answers as JSON objects: one an entity, in it one a value.

All but five texts a feature are the same in every answer to a question. So the numbers are encoded
in one call, their texts are put between those that do not change, and all is joined once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import add, itemgetter

import msgspec
import numpy as np
from numpy.typing import NDArray

from registry.definitions import FeatureVersion
from registry.formats.status import RANK, Status
from serving.api.memo import TimeTexts
from serving.features.columns import NO_TIME, AnswerColumns, are_alike
from serving.features.prepared import EntityValues, PlainValues, PreparedQuestion
from serving.features.values import TIER_NAMES
from serving.stores.row_store import Tier

OK = RANK[Status.OK]
STATUS_TEXT = {status: msgspec.json.encode(status) for status in Status}
TIER_TEXTS = [msgspec.json.encode(name) for name in TIER_NAMES]
TIER_ENDS = [b',"tier":' + text for text in TIER_TEXTS]
"""How a value ends, by its tier."""
RESULTS, RESULTS_END = b'{"results":[', b"]}"
"""What is around the answers about many entities."""

ENTITY = b'{"entity":'

AGE = b',"age_seconds":'
"""What stands between an event time and an age."""

PIECES = 4
"""Of a feature of one of many: what is before its value, its value, its status and version, and
its time and age. Its tier is in what comes next if all that is answered is from one."""


class ObjectsForm:
    """How answers to a question are written."""

    def __init__(self, question: PreparedQuestion, times: TimeTexts) -> None:
        """`times` are the texts of event times with `AGE` behind them."""
        self._slots = list(question.slots.values())
        self._times = times
        features = question.versions.items()
        self._names = [msgspec.json.encode(name) + b':{"value":' for name, _ in features]
        versions = [_version(feature, question.deprecated) for _, feature in features]
        self._middles = [
            [_middle(STATUS_TEXT[status], version) for status in Status] for version in versions
        ]
        """Of each feature by the rank of its status: what stands between value and event time."""
        parts, before = [ENTITY], b',"features":{'
        for name, version in zip(self._names, versions, strict=True):
            after_status = b',"version":' + version + b',"event_time":'
            parts += [before + name, b',"status":', after_status, b',"tier":']
            before = b"},"
        self._plain_text = _plain_text(self._names, [middles[OK] for middles in self._middles])
        values = question.stored + len(question.derived)
        texts = [index for value, time in self._slots for index in (value, values + time)]
        self._plain_texts = itemgetter(*texts)
        self._template = [text for part in parts for text in (part, b"")] + [b"}}}"]
        self._of_many: dict[bytes, list[bytes]] = {}
        """What is the same of each of many, by the end of a value: its tier, or nothing."""

    def plain(self, entity: bytes, found: PlainValues, tier: Tier, now_ns: int) -> bytes:
        """The answer of an entity whose values are all `ok` and from one tier, as `one` has it."""
        values, times = found
        once = dict.fromkeys(times)  # a derived feature has the time of one of its parts
        ages = [(now_ns - time) / 1e9 for time in once]
        numbers = msgspec.json.encode(values + ages)[1:-1].split(b",")
        tails = {
            time: self._times(time) + age + TIER_ENDS[tier]
            for time, age in zip(once, numbers[len(values) :], strict=True)
        }
        if len(tails) < len(times):
            numbers[len(values) :] = [tails[time] for time in times]
        else:
            numbers[len(values) :] = tails.values()
        return self._plain_text % (entity, *self._plain_texts(numbers))

    def one(self, entity: bytes, found: EntityValues, now_ns: int) -> bytes:
        """The answer of an entity, of which `entity` is the text."""
        values, statuses, times, tiers = found
        ages = [math.nan if time is None else (now_ns - time) / 1e9 for time in times]
        numbers = msgspec.json.encode(values + ages)[1:-1].split(b",")
        first_age = len(values)
        texts = [self._times(NO_TIME if time is None else time) for time in times]
        changing = [entity]
        for value, time in self._slots:
            status = STATUS_TEXT[statuses[value]]
            tail, tier = texts[time] + numbers[first_age + time], TIER_TEXTS[tiers[time]]
            changing += (numbers[value], status, tail, tier)
        pieces = self._template.copy()
        pieces[1::2] = changing
        return b"".join(pieces)

    def many(self, entities: Sequence[bytes], found: AnswerColumns) -> bytes:
        """The answers of all entities, whose texts `entities` are, as `{"results": […]}`."""
        pieces, _, end = self._pieces(entities, found)
        pieces[0] = RESULTS + ENTITY
        pieces.append(end + RESULTS_END)
        return b"".join(pieces)

    def each(self, entities: Sequence[bytes], found: AnswerColumns) -> list[bytes]:
        """The answers of all entities, whose texts `entities` are, one by one."""
        pieces, step, end = self._pieces(entities, found)
        return [
            b"".join((ENTITY, *pieces[begin + 1 : begin + step], end))
            for begin in range(0, len(pieces), step)
        ]

    def _pieces(
        self, entities: Sequence[bytes], found: AnswerColumns
    ) -> tuple[list[bytes], int, bytes]:
        """All pieces of the answers, how many an entity has, and how an entity ends.

        The first piece of each ends the entity before, and begins its own.
        """
        tier = found.tiers[0, 0]
        one_tier = are_alike(found.tiers.ravel(order="K"))
        end = TIER_ENDS[int(tier)] if one_tier else b""
        values, tails = self._numbers(found)
        of_each = self._of_each(end)
        step = len(of_each)
        pieces = of_each * len(entities)
        pieces[1::step] = entities
        for n, (value, time) in enumerate(self._slots):
            begin = 2 + PIECES * n
            pieces[begin + 1 :: step] = values[value]
            if not found.are_ok:
                middles = self._middles[n]
                ranks = found.ranks[:, value].tolist()
                pieces[begin + 2 :: step] = [middles[rank] for rank in ranks]
            tail = _without(tails[time], found.absent, value)
            if not one_tier:
                own_tiers = map(TIER_ENDS.__getitem__, found.tiers[:, time].tolist())
                tail = [text + tier for text, tier in zip(tail, own_tiers, strict=True)]
            pieces[begin + 3 :: step] = tail
        return pieces, step, end + b"}}}"

    def _of_each(self, end: bytes) -> list[bytes]:
        """What is the same of each entity, where `end` is the end of each value."""
        if end not in self._of_many:
            pieces, before = [end + b"}}}," + ENTITY, b""], b',"features":{'
            for name, middles in zip(self._names, self._middles, strict=True):
                pieces += [before + name, b"", middles[0], b""]
                before = end + b"},"
            self._of_many[end] = pieces
        return self._of_many[end]

    def _numbers(self, found: AnswerColumns) -> tuple[list[list[bytes]], list[list[bytes]]]:
        """The texts of each column of values, and of each column of event times and ages."""
        times: list[list[int]] = found.times.T.tolist()
        first = [times.index(own) for own in times]  # a derived feature has the times of its parts
        once = sorted(set(first))
        ages = (found.now_ns - found.times.T[once]) / 1e9
        if not found.are_ok:
            ages[found.times.T[once] == NO_TIME] = np.nan
        together = np.concatenate([found.values.T, ages])
        numbers = msgspec.json.encode(together.ravel().tolist())[1:-1].split(b",")
        n = len(found.values)
        columns = [numbers[begin : begin + n] for begin in range(0, len(numbers), n)]
        of_ages = columns[found.values.shape[1] :]
        tails = {
            time: list(map(add, self._times.each(times[time]), texts))
            for time, texts in zip(once, of_ages, strict=True)
        }
        return columns, [tails[time] for time in first]


def _plain_text(names: Sequence[bytes], middles: Sequence[bytes]) -> bytes:
    """What answers about one entity have in common where all values are `ok` and of one tier.

    It is a format that takes the entity and, of each feature, its value and what follows that.
    """
    pieces, before = [ENTITY, b"%b"], b',"features":{'
    for name, middle in zip(names, middles, strict=True):
        pieces += [_as_it_is(before + name), b"%b", _as_it_is(middle), b"%b"]
        before = b"},"
    return b"".join([*pieces, b"}}}"])


def _as_it_is(text: bytes) -> bytes:
    """A text in a format."""
    return text.replace(b"%", b"%%")


def _version(feature: FeatureVersion, deprecated: Mapping[str, str]) -> bytes:
    """The text of a version, and of the time since when it is deprecated, where it is."""
    since = deprecated.get(feature.ref)
    text = msgspec.json.encode(feature.version)
    return text if since is None else text + b',"deprecated":' + msgspec.json.encode(since)


def _middle(status: bytes, version: bytes) -> bytes:
    return b',"status":' + status + b',"version":' + version + b',"event_time":'


def _without(
    tails: Sequence[bytes], absent: NDArray[np.bool_] | None, value: int
) -> Sequence[bytes]:
    """The texts of times and ages, without those of entities whose rows lack a feature."""
    if absent is None or not absent[:, value].any():
        return tails
    nothing = b'null,"age_seconds":null'
    lacking = absent[:, value].tolist()
    return [nothing if lacks else tail for lacks, tail in zip(lacking, tails, strict=True)]
