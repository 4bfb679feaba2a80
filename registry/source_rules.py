"""Which rules decide an offset: a source's definition may change, and what is decided stays so.

Rules are everything that decides how a message becomes ticks. Each change is recorded with the
offset of every partition from which it holds. What is read of the log, by whomever and however
often, is decided by the rules that held there:

    offsets of a partition    0 ──────────── 120 ─────────── 300 ──►
    rules                        the first       the second     the newest

A partition for which nothing is recorded, as of a topic that was made anew, has the newest rules
from its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from registry.definitions import Catalog, Definitions, RecordedRules, Source
from registry.errors import DefinitionError, RulesChanged, RulesOfEarlierBuild
from registry.wording import differences

FIXED = ("name", "topic", "key")
NO_RULES = ("history",)
"""What of a source decides no tick and no value: it is the same for all offsets."""

RULES = tuple(name for name in Source.__struct_fields__ if name not in (*FIXED, *NO_RULES))
"""What of a source may change: all but what every row has, and the names of its numbers."""


class RulesSpan(NamedTuple):
    """Rules, and the first offset that they decide."""

    offset: int
    rules: RecordedRules


class SourceRules:
    """The rules of one source, over all offsets of its topics."""

    def __init__(self, recorded: Sequence[RecordedRules]) -> None:
        """`recorded` are at least one, the oldest first."""
        self.recorded = tuple(recorded)
        self.newest = recorded[-1]
        self._spans: dict[tuple[bytes, int], list[RulesSpan]] = {}
        for before, rules in pairwise(recorded):
            for start in rules.starts:
                spans = self._spans.setdefault(
                    (start.topic_id, start.partition), [RulesSpan(0, before)]
                )
                while spans and spans[-1].offset >= start.offset:
                    spans.pop()  # they decide nothing
                spans.append(RulesSpan(start.offset, rules))

    @classmethod
    def of(cls, catalog: Catalog, source: str) -> SourceRules:
        """The rules that are recorded of a source; those that it has now if no history is."""
        recorded = catalog.rules.get(source)
        return cls(recorded) if recorded else cls.always(catalog.sources[source])

    @classmethod
    def always(cls, source: Source) -> SourceRules:
        """A source whose rules never changed."""
        return cls([RecordedRules(0, source)])

    @property
    def source(self) -> Source:
        """The source as it is declared now; its name, key and numbers have always been these."""
        return self.newest.source

    @property
    def sources(self) -> list[Source]:
        """The source as it was and is declared, the oldest first."""
        return [rules.source for rules in self.recorded]

    def spans(self, topic_id: bytes, partition: int) -> Sequence[RulesSpan]:
        """The rules of a partition in the order of the offsets; the first begin at 0."""
        return self._spans.get((topic_id, partition)) or [RulesSpan(0, self.newest)]

    def starts(self, topic_id: bytes, partition: int) -> list[int]:
        """The offsets of a partition at which other rules begin."""
        return [span.offset for span in self.spans(topic_id, partition)[1:]]

    def known_from(self, topic_id: bytes, partition: int) -> int:
        """The offset from which on this build has the rules of a partition; 0 but for old logs."""
        spans = self.spans(topic_id, partition)
        return max(
            (
                following.offset
                for span, following in pairwise(spans)
                if span.rules.of_earlier_build
            ),
            default=0,
        )

    def at(self, topic_id: bytes, partition: int, offset: int) -> RecordedRules:
        """The rules that decide an offset. Raises `RulesOfEarlierBuild`."""
        spans = self.spans(topic_id, partition)
        number = max(n for n, span in enumerate(spans) if span.offset <= offset)
        rules = spans[number].rules
        if rules.of_earlier_build:
            following = spans[number + 1].offset if number + 1 < len(spans) else None
            source = rules.source
            raise RulesOfEarlierBuild(source.name, source.topic, partition, following)
        return rules


def changed_rules(recorded: Source, declared: Source, where: str) -> str:
    """How the declared rules differ from the recorded ones, in words; "" where they do not.

    Raises `DefinitionError`, naming `where`, for what cannot change.
    """
    fixed = differences(recorded, declared, (*FIXED, "field_names"))
    if fixed:
        raise DefinitionError(
            where,
            f"is recorded, and its {fixed}: its rows exist, so it cannot change; declare a source "
            "with a new name and a topic of its own",
        )
    return differences(recorded, declared, RULES)


def check_known(catalog: Catalog) -> None:
    """Check that this build has the rules that sources have now. Raises `RulesOfEarlierBuild`."""
    for name, recorded in catalog.rules.items():
        if recorded[-1].of_earlier_build:
            raise RulesOfEarlierBuild(name, catalog.sources[name].topic, None, None)


def check_sources(known: Catalog, declared: Definitions, may_change: bool = False) -> None:
    """Check that a file declares what is recorded of its sources; rules, unless they may change.

    Raises `RulesChanged`, `RulesOfEarlierBuild`, and `DefinitionError` for what cannot change; the
    first and the last one name the file and the source.
    """
    for source in declared.sources:
        if source.name not in known.sources:
            continue
        rules, where = SourceRules.of(known, source.name), f"{declared.file}: source {source.name}"
        changed = changed_rules(rules.source, source, where)
        if rules.newest.of_earlier_build and not may_change:
            raise RulesOfEarlierBuild(source.name, source.topic, None, None)
        if changed and not may_change:
            raise RulesChanged(where, changed)
