"""The registry as an object: everything that a person or a program does with features.

    registry = Registry(engine, By("ann"))
    registry.create_feature_version(
        feature_name="price_momentum",
        version="2.0.0",
        schema={"max_age": "10s"},
        parent_version="1.0.0",
    )
    registry.activate("price_momentum@2.0.0")
    registry.roll_back("price_momentum")

Commands and HTTP routes call this and nothing else. Each change is one transaction with a line in
the audit; of two at once the second sees what the first has done. Workers and servers follow within
a second.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine

from registry import features_export
from registry.catalog import load, migrated, read
from registry.database.views import create_views
from registry.definitions import Catalog, Definitions, Experiment, FeatureVersion
from registry.errors import NotAllowed, StalePlan
from registry.features_file import Text, read_text
from registry.formats.heartbeat import Heartbeat
from registry.lifecycle import (
    activation,
    audit,
    backfills,
    experiments,
    exporting,
    new_versions,
    search,
    sets,
    training_sets,
    usage,
    withdrawal,
)
from registry.lifecycle.activation import Activation
from registry.lifecycle.audit import By, Entry
from registry.lifecycle.backfills import Backfill, TicksFrom
from registry.lifecycle.changes import changes_of
from registry.lifecycle.changing import Change, changing
from registry.lifecycle.details import Details, details_of
from registry.lifecycle.experiments import RecordedExperiment
from registry.lifecycle.lineage import Lineage, lineage_of
from registry.lifecycle.new_versions import DeclaredVersion
from registry.lifecycle.plan import Plan, made_now, seal
from registry.lifecycle.plan_page import COMPARED, page_of
from registry.lifecycle.recording import (
    LIMITS,
    Limits,
    check_limits,
    record,
    record_definitions,
)
from registry.lifecycle.search import Page as SearchPage
from registry.lifecycle.source_recording import Begin
from registry.lifecycle.states import name_of, version_of
from registry.lifecycle.training_sets import TrainingSet
from registry.lifecycle.usage import FeatureUsage
from registry.serial import Serial, serial_in
from registry.source_rules import check_sources
from registry.wording import Differing, differing

MOST_ENTRIES = 1_000
"""Number of lines of a history or of the audit that are read at once."""


@dataclass(frozen=True, slots=True)
class Registry:
    """What is recorded at `engine`, read and changed in the name of `by`.

    `rejected_topic` is the topic to which workers publish rejected ticks, and that no source may
    read. Methods that change something take a `note`, which says why in the audit.
    """

    engine: Engine
    by: By
    rejected_topic: str | None = None
    limits: Limits = LIMITS
    heartbeats: Callable[[], Sequence[Heartbeat]] | None = None
    """Gives those of the workers, of which online ones know what Redis has; None where there is no
    Redis to be looked after."""

    def catalog(self) -> Catalog:
        """What is recorded. Raises `RegistryEmpty`."""
        return load(self.engine)

    def known(self) -> Catalog:
        """What is recorded, which may be nothing."""
        with self._reading() as (_, known):
            return known

    def complete(self) -> None:
        """Bring to this build what an earlier one has recorded: pins, and what is looked up."""
        with changing(self.engine, self.by, whole=True):
            pass

    def extend_views(self, only: Collection[str] | None = None) -> None:
        """Create the views that are missing, and their new columns; with `only` of these sources.

        Raises `NotOurView` and `ViewBusy`, once all others are made.
        """
        patience = self.limits.view_patience
        if patience is not None:
            create_views(self.engine, patience, only)

    def plan(self, file: Text) -> Plan:
        """What applying the text of a features file would do; nothing is changed.

        Raises `DefinitionError` and `VersionChanged`, as applying it would.
        """
        with self._reading() as (connection, known):
            serial = serial_in(connection)
            if serial is None:
                raise StalePlan
            definitions = read_text(file, known)
            check_sources(known, definitions, may_change=True)
            changes = changes_of(known, definitions, self.rejected_topic)
            check_limits(known, changes, definitions, self.limits)
            now = made_now()
            page = page_of(connection, known, definitions, changes, now)
        made = file.name, file.text, serial.number, serial.moved_at, now, page
        return Plan(*made, seal(file.text, page, serial))

    def apply(
        self,
        file: Text,
        expected: Serial | None = None,
        begin: Begin | None = None,
        note: str = "",
    ) -> Catalog:
        """Record the text of a features file; with `expected` only as long as the plan holds.

        Raises as `registry.lifecycle.recording.record`.
        """
        by = self.by._replace(note=note)
        return record(self.engine, file, by, self.rejected_topic, self.limits, begin, expected)

    def create_feature_version(
        self,
        feature_name: str,
        version: str,
        schema: Mapping[str, Any],
        parent_version: str | None = None,
        note: str = "",
    ) -> FeatureVersion:
        """Record one version, as a features file would declare it.

        `schema` has the settings of a `[[feature]]` table but its name and version: `expression`,
        `source` or `over`, `unit`, `max_age` and so on. What it leaves out comes from the version
        `parent_version`. The first version of a feature is activated, a later one stands by.

        Raises `DefinitionError` for what cannot be, and `VersionChanged` where that version is
        recorded and is another one; recording the same again changes nothing. It stays recorded
        where its view cannot be extended, which raises `NotOurView` or `ViewBusy`.
        """
        given = DeclaredVersion(feature_name, version, schema, parent_version)
        return self.create_feature_versions([given], note)[0]

    def create_feature_versions(
        self, versions: Sequence[DeclaredVersion], note: str = ""
    ) -> list[FeatureVersion]:
        """Record several versions in one transaction, as one features file would declare them.

        So the rows of a source go to one new row schema with all of them, and not to one for each:
        row schemas are kept for ever. A version may name another one of them as its parent; of a
        feature that is new the last one is activated. Raises as `create_feature_version`.
        """
        return self.record_versions(versions, note)[1]

    def record_versions(
        self, versions: Sequence[DeclaredVersion], note: str = ""
    ) -> tuple[Catalog, list[FeatureVersion]]:
        """The same, with all that is recorded then."""
        with self._changing(note) as change:
            definitions = new_versions.definitions_of(versions, change.known)
            record_definitions(change, definitions, self.rejected_topic, self.limits)
        features = definitions.features
        # also where they were recorded before, and a view was busy
        self.extend_views({one.source for one in features if one.source is not None})
        known = change.recorded
        return known, [known.features[one.ref] for one in features]

    def activate(self, ref: str, note: str = "", without_history: bool = False) -> Catalog:
        """Make a feature's name mean a version, `name@version`.

        Raises `UnknownVersion`, `NotAllowed`, and `NotCovered` where it lacks what the active
        version has; what came before its first tick it may lack `without_history`.
        """
        beats = self._beats()
        return self._change(
            note, lambda change: activation.activate(change, ref, without_history, beats)
        )

    def roll_back(self, name: str, note: str = "") -> Catalog:
        """Make a feature's name mean the version that it meant before the one that it means now.

        Raises `UnknownVersion` and `NotAllowed`.
        """
        return self._change(note, lambda change: activation.roll_back(change, name))

    def deprecate(self, ref: str, replacement: str | None = None, note: str = "") -> Catalog:
        """Say that a version, or a set, is to be given up.

        Raises `UnknownVersion` and `NotAllowed`.
        """
        return self._change(note, lambda change: withdrawal.deprecate(change, ref, replacement))

    def retire(self, ref: str, note: str = "") -> Catalog:
        """Give up a version, or a set, that is deprecated and that nothing uses.

        Raises `UnknownVersion` and `NotAllowed`.
        """

        def make(change: Change) -> None:
            since = datetime.now(UTC) - usage.RECENT
            readers = usage.recent_readers(change.connection, ref, since)
            withdrawal.retire(change, ref, readers)

        return self._change(note, make)

    def use(self, ref: str, model: str, note: str = "") -> Catalog:
        """Put on record that a model reads a set. Raises `UnknownVersion`, `DefinitionError`."""
        return self._change(note, lambda change: sets.use(change, ref, model))

    def stop_using(self, ref: str, model: str, note: str = "") -> Catalog:
        """Put on record that a model reads a set no more. Raises `UnknownVersion`."""
        return self._change(note, lambda change: sets.stop_using(change, ref, model))

    def start_experiment(self, experiment: Experiment, note: str = "") -> Catalog:
        """Let a feature's name mean several versions, or give its arms other weights.

        Raises `DefinitionError`, `UnknownVersion` and `NotAllowed`.
        """
        beats = self._beats()
        return self._change(note, lambda change: experiments.start(change, experiment, beats))

    def stop_experiment(
        self, name: str, winner: str | None = None, note: str = "", without_history: bool = False
    ) -> Catalog:
        """Let a feature's name mean one version again, that of the variant `winner` if given.

        Raises `UnknownVersion`, `NotAllowed`, and `NotCovered` as `activate` for the winner.
        """
        beats = self._beats()
        return self._change(
            note, lambda change: experiments.stop(change, name, winner, without_history, beats)
        )

    def begin_backfill(
        self, ref: str, note: str = "", ticks_from: TicksFrom | None = None
    ) -> Backfill | None:
        """The backfill of a version, begun unless it was; None where it lacks nothing.

        `pipelines.backfill` computes it. One that reads its ticks elsewhere than `ticks_from` is
        begun anew; without that it goes on. Raises `UnknownVersion`, and `NotAllowed` for a version
        that is derived or retired, and where a process computes it from elsewhere.
        """
        with self._changing(note) as change:
            return backfills.begin(change, ref, ticks_from)

    def finish_backfill(self, ref: str, computed: Backfill | None = None) -> Backfill | None:
        """Put on record that the backfill of a version has computed everything.

        With `computed` it is that one, as it was begun: raises `NotAllowed` where it was begun anew
        since. The view of its source shows the values then. It stays on record where that view is
        in use for too long, which raises `ViewBusy`: it is extended when this is called again.
        """
        with self._changing("") as change:
            found = backfills.finish(change, ref, computed)
        self.extend_views()
        return found

    def experiments(self) -> list[RecordedExperiment]:
        """All experiments, the newest first."""
        with self._reading() as (connection, _):
            return experiments.listed(connection)

    def details(self, ref: str) -> Details:
        """Everything about a version. Raises `UnknownVersion`."""
        with self._reading() as (connection, known):
            return details_of(connection, known, ref)

    def search(self, text: str, limit: int = 20, after: str | None = None) -> SearchPage:
        """A page of the features that a text finds, the best first.

        `after` is the `next` of the page before. Raises `InvalidSearch`.
        """
        with migrated(), self.engine.connect() as connection:
            return search.search(connection, text, limit, after)

    def usage(self, name: str, days: int) -> FeatureUsage:
        """Who has read which version of a feature, on each of the last `days` days.

        Raises `UnknownVersion`, and ValueError for a number of days for which nothing is kept.
        """
        with self._reading() as (connection, known):
            return usage.usage(connection, name_of(known, name), days)

    def history(self, name: str, limit: int = 100) -> list[Activation]:
        """What a feature's name has meant, the newest first. Raises `UnknownVersion`."""
        with self._reading() as (connection, known):
            return activation.history(connection, known, name, min(limit, MOST_ENTRIES))

    def last_move(self, known: Catalog, name: str) -> Activation:
        """The last move of a feature's name, which `known` has."""
        with migrated(), self.engine.connect() as connection:
            return activation.history(connection, known, name, 1)[0]

    def audit(self, name: str, limit: int = 100, below: int | None = None) -> list[Entry]:
        """Who changed what about a feature, its versions and its rows, the newest first.

        With a pin, `name@version`, about that version and the name. Of a set it is named as
        `set:name@1`, of a source as `source:name`. `below` is the id of the last line of the page
        before. Raises `UnknownVersion`.
        """
        with self._reading() as (connection, known):
            subjects = audit.subjects_of(known, name)
            return audit.entries(connection, subjects, min(limit, MOST_ENTRIES), below)

    def record_repair(self, source: str, made: Mapping[str, int], note: str = "") -> None:
        """Put a repair of a source into the audit, with how many edits of each kind it made."""
        with self._changing(note) as change:
            subject = f"{audit.SOURCE_PREFIX}{source}"
            audit.audit(change.connection, change.by, "repair", subject, dict(made))

    def sets_with(self, source: str, since: Mapping[str, int]) -> list[str]:
        """The named training sets that a repair of entities from these times on is about.

        By entity its earliest time, nanoseconds UTC.
        """
        with self._reading() as (connection, _):
            return training_sets.containing(connection, source, since)

    def lineage(self, text: str) -> Lineage:
        """What a feature, a version or a set comes from and what depends on it.

        Raises `UnknownVersion`.
        """
        with self._reading() as (connection, known):
            kept = training_sets.versions_in(connection)
            return lineage_of(known, sets.models(connection), text, kept)

    def training_sets(self) -> list[TrainingSet]:
        """The training sets that are kept by name, the newest first."""
        with self._reading() as (connection, _):
            return training_sets.listed(connection)

    def training_set(self, name: str) -> TrainingSet:
        """One of them. Raises `UnknownVersion`."""
        with self._reading() as (connection, _):
            return training_sets.named(connection, name)

    def delete_training_set(self, name: str, note: str = "") -> None:
        """Forget a training set. Raises `UnknownVersion`."""
        with self._changing(note) as change:
            training_sets.remove(change.connection, change.by, name)

    def models(self) -> dict[str, list[str]]:
        """The models that read each set."""
        with self._reading() as (connection, _):
            return sets.models(connection)

    def diff(self, ref: str, other: str) -> list[Differing]:
        """In what two versions differ, in the words of a file. Raises `UnknownVersion`."""
        known = self.catalog()
        return differing(version_of(known, ref), version_of(known, other), COMPARED)

    def exported(self, names: Sequence[str] = ()) -> Definitions:
        """All that is recorded and not retired, in an order in which a file can declare it.

        With `names` these features, their parts and their sources alone. The active version of a
        feature is the last one, so that an empty registry activates it. Raises `UnknownVersion`.
        """
        return exporting.exported(self.catalog(), names)

    def export(self, names: Sequence[str] = ()) -> str:
        """The text of a features file with what `exported` gives. Raises `UnknownVersion`."""
        return features_export.text_of(self.exported(names))

    def _beats(self) -> Sequence[Heartbeat] | None:
        return None if self.heartbeats is None else self.heartbeats()

    def _change(self, note: str, make: Callable[[Change], object]) -> Catalog:
        with self._changing(note) as change:
            make(change)
        return change.recorded

    @contextmanager
    def _changing(self, note: str) -> Iterator[Change]:
        by = self.by._replace(note=note)
        with changing(self.engine, by) as change:
            if not change.known.writing:
                raise NotAllowed(
                    "the registry is empty: run `tickwell migrate`, which records a first file"
                )
            yield change

    @contextmanager
    def _reading(self) -> Iterator[tuple[Connection, Catalog]]:
        """A transaction that sees one state of the registry, and the catalog of that state."""
        isolated = self.engine.connect().execution_options(isolation_level="REPEATABLE READ")
        with migrated(), isolated as connection:
            yield connection, read(connection)
