"""One deliberate mistake, as `mutations.toml` lists it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

LIST = Path(__file__).with_name("mutations.toml")


class Mutation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text of `file`, which occurs there once, and the wrong text that replaces it.

    `tests` are pytest's arguments: files, or single tests, of which one must fail.
    """

    area: str
    mistake: str
    file: str
    old: str
    new: str
    tests: list[str]

    def mutated(self, root: Path) -> str:
        """The text of the file with the mistake in it.

        Raises ValueError where the correct text does not occur exactly once: the code has changed,
        and the list must follow.
        """
        text = (root / self.file).read_text("utf-8")
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.file} has the text {self.old!r} {count} times: {self.mistake}")
        return text.replace(self.old, self.new)


def read_mutations(file: Path = LIST) -> list[Mutation]:
    """The list, in its order. Raises msgspec.ValidationError for an entry that is incomplete."""
    table = tomllib.loads(file.read_text("utf-8"))
    return msgspec.convert(table["mutation"], list[Mutation])
