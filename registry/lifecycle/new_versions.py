"""Versions that a program records, as a features file would declare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from registry.definitions import Catalog, Definitions
from registry.errors import DefinitionError
from registry.feature_tables import Versions, feature_of
from registry.naming import check_unique

MOST_VERSIONS = 1_000
"""Number of versions that are recorded at once."""


class DeclaredVersion(NamedTuple):
    """A version to record.

    `schema` has the settings of a `[[feature]]` table but its name and version; what it leaves out
    comes from the version `parent_version`.
    """

    feature_name: str
    version: str
    schema: Mapping[str, Any]
    parent_version: str | None = None

    @property
    def table(self) -> dict[str, Any]:
        """The table of a features file."""
        table = {**self.schema, "name": self.feature_name, "version": self.version}
        if self.parent_version is not None:
            table["parent"] = self.parent_version
        return table


def definitions_of(given: Sequence[DeclaredVersion], known: Catalog) -> Definitions:
    """What versions declare, of sources that are `known`. Raises `DefinitionError`."""
    if not 1 <= len(given) <= MOST_VERSIONS:
        raise DefinitionError("versions", f"are {len(given)}: record 1 to {MOST_VERSIONS} at once")
    first = f"{given[0].feature_name}@{given[0].version}"
    file = first if len(given) == 1 else f"{first} and {len(given) - 1} more"
    tables = [one.table for one in given]
    versions = Versions(tables, known.features, file)
    features = tuple(feature_of(versions.whole(one), known.sources, file) for one in tables)
    check_unique([feature.ref for feature in features], file)
    return Definitions((), features, file)
