"""What can be wrong with definitions, the registry's tables and stored rows."""

from __future__ import annotations


class RegistryError(Exception):
    """Any error of the registry."""


class DefinitionError(RegistryError):
    """A definition cannot be used as it is written."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")


class VersionChanged(DefinitionError):
    """A recorded version is immutable, and the file now defines it differently."""

    def __init__(self, where: str, ref: str, what: str) -> None:
        super().__init__(
            where,
            f"{ref} is recorded, and its {what}: a version never changes; give the new definition "
            "a new version number",
        )


class RulesChanged(DefinitionError):
    """A file declares other rules of a source than are recorded."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(
            where,
            f"its rules are recorded, and its {what}: change the file back; or stop the workers "
            "and run `tickwell migrate --from-now` (`tickwell up --from-now` for what it runs), "
            "and what no store has yet is decided by the file's rules",
        )


class RulesOfEarlierBuild(RegistryError):
    """An earlier build decided ticks by rules that this one does not have."""

    def __init__(self, source: str, topic: str, partition: int | None, offset: int | None) -> None:
        if offset is None:
            super().__init__(
                f"source {source} was recorded by an earlier build of Tickwell, and this one would "
                "decide some of its ticks otherwise: let the earlier build's workers store what is "
                f"in {topic}, stop them, say in the features file which `partitioner` the "
                "producers use, and run `tickwell migrate --from-now`"
            )
            return
        super().__init__(
            f"{topic}[{partition}] before offset {offset} was decided by an earlier build of "
            "Tickwell, and this one would decide some of it otherwise: its rows stay as they are; "
            f"begin there by --partition {partition} --from-offset {offset}"
        )


class StalePlan(RegistryError):
    """The registry has changed since a plan was made."""

    def __init__(self) -> None:
        super().__init__(
            "the registry has changed since the plan was made, so it may say something that is not "
            "true any more: nothing was changed; make the plan again and look at it"
        )


class InvalidPlan(RegistryError):
    """A file is no plan that this version can read."""

    def __init__(self, why: str) -> None:
        super().__init__(f"not a plan of this version ({why}): make it again")


class PlanTooLarge(RegistryError):
    """A plan would not be read again if it was saved."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(
            f"the plan has {size:,} bytes, and {most:,} are read of a saved one: split the "
            "features file, or apply the file itself"
        )


class UnknownVersion(RegistryError):
    """No feature has that name, or none of its versions that number."""


class NotAllowed(RegistryError):
    """A version is in a state in which this cannot be done."""


class NotCovered(NotAllowed):
    """A version has no values of what the active one has values of."""

    def __init__(self, ref: str, what: str, advice: str) -> None:
        super().__init__(f"{ref} has no values of {what}: {advice}")


class HistoryLetGo(RegistryError):
    """A source is to keep more ticks than it did when Postgres let go of months."""

    def __init__(self, source: str, history: int, longer: int, since: str) -> None:
        super().__init__(
            f"source {source}: its history cannot grow from {history:,} to {longer:,} ticks. "
            f"Postgres has let go of what was before {since} (`tickwell lake drop`), and kept what "
            "states of the shorter history need: longer ones would have gaps. Keep the history, or "
            "declare a source of another name for the longer windows"
        )


class RegistryEmpty(RegistryError):
    """Nothing is recorded yet."""

    def __init__(self) -> None:
        super().__init__("the registry holds no features yet: run `tickwell migrate`")


class OldRegistry(RegistryError):
    """The tables of the registry are of an earlier build."""

    def __init__(self) -> None:
        super().__init__(
            "the tables of the registry are of an earlier version of Tickwell: run `tickwell "
            "migrate`"
        )


class NewerRegistry(RegistryError):
    """A newer Tickwell recorded something that this one does not know."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the registry is of a newer Tickwell ({what}): use that one; nothing was changed"
        )


class NotOurView(RegistryError):
    """Something else has the name of a source's view."""

    def __init__(self, view: str, what: str) -> None:
        super().__init__(
            f"{view} {what}: it is not the view that Tickwell makes of the source. The definitions "
            "are recorded, and only the view is missing: rename what has its name, or move it to "
            "another schema, then run `tickwell migrate` again"
        )


class ViewBusy(RegistryError):
    """A view could not be extended, because a transaction reads it for too long."""

    def __init__(self, view: str, patience: str) -> None:
        super().__init__(
            f"{view} was being read for longer than {patience}, and every later query would have "
            "had to wait. The definitions are recorded, and the view is as it was: it lacks new "
            "columns, and one that an earlier build has made follows no activation. Let that "
            "transaction end (pg_stat_activity shows it), then run `tickwell migrate` again"
        )


class TablesBusy(RegistryError):
    """A table could not be changed, because a transaction reads it for too long."""

    def __init__(self, patience: str) -> None:
        super().__init__(
            f"a table that changes was being read for longer than {patience}, and everything that "
            "needs it would have had to wait: nothing was changed. Let that transaction end "
            "(pg_stat_activity shows it), then run `tickwell migrate` again"
        )


class InvalidSearch(RegistryError):
    """A search that is not answered, with what to ask in its place."""


class CorruptRow(RegistryError):
    """The stored bytes are not a packed row."""

    def __init__(self, head: bytes) -> None:
        super().__init__(
            f"not a packed row, it starts with {head.hex()}: something else writes to these keys, "
            "or a newer version does; rebuild the key from Postgres"
        )


class NoApiKeys(RegistryError):
    """The database has no table of API keys."""

    def __init__(self) -> None:
        super().__init__("the database knows no API keys yet: run `tickwell migrate`")


class InvalidApiKey(RegistryError):
    """An API key cannot be made as it was asked for."""


class ApiKeyNameTaken(RegistryError):
    """Another key has the name, and is not revoked."""

    def __init__(self, name: str, expired: bool) -> None:
        state = "has expired and is not revoked" if expired else "is valid"
        super().__init__(
            f"there is a key {name!r}, which {state}: give the new one another name, or revoke "
            f"that one by `tickwell keys revoke {name}`"
        )


class UnknownApiKey(RegistryError):
    """No key has that name or number."""

    def __init__(self, which: str) -> None:
        super().__init__(f"no key has the name or the number {which!r}: see `tickwell keys list`")


class ApiKeyHalfRevoked(RegistryError):
    """One of the two stores did not take a revocation."""
