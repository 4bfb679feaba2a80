"""The identity of a version: the digest of its meaning, whatever words it was written in.

    mean( price,5 )  and  mean(price, 5)        are one version
    a + b            and  b + a                 are two: nothing is known of algebra here

The digest covers the typed tree of the expression, the edition of each function in it, the kind of
entity, the source or `over`, the versions of the parts, and `max_age`, which decides a status. It
does not cover words about the version, nor where the source finds its fields in a message: that is
recorded by offset (`registry.source_rules`).
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from registry.definitions import FeatureVersion
from registry.errors import DefinitionError
from registry.language.syntax import parse

EDITIONS = {"last": 1, "mean": 1, "stddev": 1, "log_return": 1, "abs": 1, "sum": 1}
"""The edition of each function: other bits for the same ticks are another edition."""

OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}

Tree = list[Any]
"""`["function", argument, ...]`, `["+", left, right]`, `["-", operand]`, `["field", name]`,
`["feature", "name@version"]` and `["number", value]`."""


def tree(feature: FeatureVersion) -> Tree:
    """The tree of a version's expression. Raises `DefinitionError` where it has none."""
    pins = feature.pins

    def of(node: ast.expr) -> Tree:
        match node:
            case ast.Name(name):
                return ["feature", pins.get(name, name)] if feature.derived else ["field", name]
            case ast.Constant(int() | float() as number):
                # a derived expression counts in doubles, the length of a window is whole
                return ["number", float(number) if feature.derived else number]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return ["-", of(operand)]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return [OPERATORS[type(op)], of(left), of(right)]
            case ast.Call(func=ast.Name(name), args=arguments) if name in EDITIONS:
                return [name, *map(of, arguments)]
        raise DefinitionError(feature.ref, f"`{feature.expression}` has no canonical form")

    return of(parse(feature.expression, feature.ref))


def editions(feature: FeatureVersion) -> dict[str, int]:
    """The edition of each function that a version calls, by its name."""
    return {name: EDITIONS[name] for name in sorted(set(_called(tree(feature))))}


def identity(feature: FeatureVersion) -> dict[str, Any]:
    """What makes a version what it is, as JSON."""
    return {
        "entity": list(feature.entity),
        "source": feature.source,
        "over": feature.over,
        "tree": tree(feature),
        "editions": editions(feature),
        "max_age_ns": feature.max_age_ns,
    }


def digest(feature: FeatureVersion) -> bytes:
    """The SHA-256 of `identity`."""
    text = json.dumps(identity(feature), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).digest()


def fields(feature: FeatureVersion) -> list[str]:
    """The fields of its source that a materialized version reads, each once, in their order."""
    return [] if feature.derived else list(dict.fromkeys(_leaves(tree(feature), "field")))


def _called(node: Tree) -> Iterator[str]:
    if node[0] in EDITIONS:
        yield node[0]
    for child in _children(node):
        yield from _called(child)


def _leaves(node: Tree, kind: str) -> Iterator[str]:
    if node[0] == kind:
        yield node[1]
    for child in _children(node):
        yield from _leaves(child, kind)


def _children(node: Tree) -> list[Tree]:
    return [child for child in node[1:] if isinstance(child, list)]
