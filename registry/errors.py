"""What can be wrong with definitions, the registry's tables and stored rows."""

from __future__ import annotations


class RegistryError(Exception):
    """Any error of the registry."""


class DefinitionError(RegistryError):
    """A definition cannot be used as it is written."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")


class VersionChanged(RegistryError):
    """A recorded version is immutable, and the file now defines it otherwise."""

    def __init__(self, ref: str, was: str, now: str) -> None:
        super().__init__(
            f"{ref} is recorded as `{was}` and now reads `{now}`: a version never changes; "
            "give the new definition a new version number"
        )


class RegistryEmpty(RegistryError):
    """Nothing was recorded yet."""

    def __init__(self) -> None:
        super().__init__("the registry holds no features yet: run `tickwell migrate`")


class CorruptRow(RegistryError):
    """The stored bytes are not a packed row."""

    def __init__(self, head: bytes) -> None:
        super().__init__(
            f"not a packed row, it starts with {head.hex()}: something else writes to these keys, "
            "or a newer version does; rebuild the key from Postgres"
        )
