"""Decoding by the rules that hold at a run's offsets."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from pipelines.kafka.run import Run
from pipelines.ticks.columns import Ticks
from pipelines.ticks.decoder import Decoder
from pipelines.ticks.run_limits import bounded
from pipelines.ticks.wire.schema_registry import SchemaRegistry
from registry.source_rules import SourceRules


def by_rules(run: Run, rules: SourceRules) -> list[Run]:
    """A run in pieces that meet, cut where other rules begin to hold."""
    starts = rules.starts(run.topic_id, run.partition)
    inside = [offset for offset in starts if run.base_offset < offset < run.next_offset]
    if not inside:
        return [run]
    bounds = [run.base_offset, *inside, run.next_offset]
    return [run.since(begin).before(end) for begin, end in pairwise(bounds)]


def decodable(run: Run, rules: SourceRules) -> list[Run]:
    """A run in pieces that meet: each is of one set of rules, and fits into memory as ticks."""
    return [piece for part in by_rules(run, rules) for piece in bounded(part, rules.sources)]


class RulesDecoder:
    """Decodes the runs of one source, each by the rules that hold at its offsets.

    `partitions` and `registry` are those of `ticks.decoder.Decoder`.
    """

    def __init__(
        self,
        rules: SourceRules,
        partitions: int | None = None,
        registry: SchemaRegistry | None = None,
    ) -> None:
        self._rules = rules
        self._partitions = partitions
        self._registry = registry
        self._decoders: dict[int, Decoder] = {}

    def decode(self, run: Run) -> Ticks:
        """The ticks of a run, which is of one set of rules (`by_rules`).

        Raises `RulesOfEarlierBuild`, `SchemaRegistryUnavailable` while a schema cannot be had, and
        `ValueError` for a run in which other rules begin.
        """
        rules = self._rules.at(run.topic_id, run.partition, run.base_offset)
        if len(by_rules(run, self._rules)) > 1:
            raise ValueError(
                f"{run.topic}[{run.partition}]: other rules begin within the offsets "
                f"{run.base_offset} to {run.next_offset}"
            )
        decoder = self._decoders.get(rules.id)
        if decoder is None:
            decoder = self._decoders[rules.id] = Decoder(
                rules.source, self._partitions, self._registry
            )
        return replace(decoder.decode(run), rules=rules.id)
