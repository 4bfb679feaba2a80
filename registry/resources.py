"""SQL and Lua by name: each is a file of its own, beside the module that uses it."""

from __future__ import annotations

from importlib.resources import files


def sql(package: str, name: str) -> str:
    """The statement in `sql/<name>.sql` of a package. Raises FileNotFoundError."""
    return _text(package, "sql", name)


def lua(package: str, *names: str) -> str:
    """The script whose parts are `lua/<name>.lua` of a package, in the order of `names`.

    Raises FileNotFoundError.
    """
    return "".join(_text(package, "lua", name) for name in names)


def _text(package: str, kind: str, name: str) -> str:
    return files(package).joinpath(kind, f"{name}.{kind}").read_text("utf-8")
