"""SQL and Lua by name: texts that are files of their own, beside the modules that use them."""

from __future__ import annotations

from importlib.resources import files


def sql(package: str, name: str) -> str:
    """The statement in `sql/<name>.sql` of a package. Raises FileNotFoundError."""
    return _text(package, "sql", name)


def lua(package: str, *names: str) -> str:
    """The script of which `lua/<name>.lua` of a package are the parts, in this order.

    Raises FileNotFoundError.
    """
    return "".join(_text(package, "lua", name) for name in names)


def _text(package: str, kind: str, name: str) -> str:
    return files(package).joinpath(kind, f"{name}.{kind}").read_text("utf-8")
