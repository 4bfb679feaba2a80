"""The text of an expression to its syntax tree, whatever the text."""

from __future__ import annotations

import ast
from functools import lru_cache

from registry.errors import DefinitionError

LONGEST = 2_000
"""Characters of an expression."""

DEEPEST = 100
"""Levels of an expression; `a + b + c` has three. Each takes a few of Python's stack."""


def parse(expression: str, where: str) -> ast.expr:
    """The syntax tree of an expression.

    Raises `DefinitionError`, naming `where`, for what is no expression, too long or too deep.
    """
    text = expression.strip()
    if len(text) > LONGEST:
        raise DefinitionError(
            where,
            f"the expression has {len(text)} characters and may have {LONGEST}; split the feature",
        )
    if not text.isascii() or "\0" in text:
        raise DefinitionError(
            where, f"`{text}` cannot be read: an expression is written in ASCII characters"
        )
    try:
        tree = _parsed(text)
    except SyntaxError as error:
        raise DefinitionError(where, f"`{text}` cannot be read: {error.msg}") from None
    except (RecursionError, MemoryError):  # the parser's own bound, lower in older Pythons
        raise _TooDeep(where) from None
    if _depth(tree) > DEEPEST:
        raise _TooDeep(where)
    return tree


@lru_cache(maxsize=4_096)
def _parsed(text: str) -> ast.expr:
    """The tree of a text. It is one object for all, which nobody changes."""
    try:
        return ast.parse(text, mode="eval").body
    except SystemError:  # CPython 3.11, where another thread has just set the recursion limit
        return ast.parse(text, mode="eval").body


class _TooDeep(DefinitionError):
    def __init__(self, where: str) -> None:
        super().__init__(
            where, f"the expression is nested deeper than {DEEPEST} levels; split the feature"
        )


def _depth(tree: ast.expr) -> int:
    """Levels, counted without recursion."""
    level: list[ast.AST] = [tree]
    depth = 0
    while level:
        depth += 1
        level = [
            child
            for node in level
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.expr)
        ]
    return depth
