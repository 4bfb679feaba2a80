"""Entities as a person types them: AAPL, P1/AAPL."""

from __future__ import annotations

from tickwell.errors import TickwellError


def entity_of(text: str, kind: str) -> dict[str, str]:
    """The entity that a text names, by the key fields in `kind`, as `portfolio,symbol`.

    A symbol may have a slash in it: what is left belongs to the last field. Raises `TickwellError`.
    """
    fields = kind.split(",")
    parts = text.split("/", len(fields) - 1)
    if len(fields) != len(parts):
        raise TickwellError(f"{text} has {len(parts)} parts and --kind names {len(fields)}")
    return dict(zip(fields, parts, strict=True))


def candidates(text: str, kind: str | None) -> list[dict[str, str]]:
    """What an entity's text can mean; whoever knows the feature knows which it is.

    With `kind` it means one thing. Raises `TickwellError`.
    """
    if kind is not None:
        return [entity_of(text, kind)]
    one = [{"symbol": text}, {"portfolio": text}]
    portfolio, slash, symbol = text.partition("/")
    # EUR/USD may be a symbol, P1/EUR/USD a position
    return [{"portfolio": portfolio, "symbol": symbol}, *one] if slash else one
