"""What tests import and reach: `tests.support`, and what the product offers to everybody.

A test that imports another test, sets a module's constant or reaches a private name holds on to how
a thing is built; then nothing can be moved without it. What a test must set is a parameter.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("registry", "pipelines", "serving", "tickwell", "benchmarks")
SHARED = ("support", "oracle", "checker", "chaos", "mutations")
"""Packages of tests that others import."""

INDEPENDENT = {"oracle": {"oracle"}, "checker": {"checker", "oracle"}}
"""Packages of tests that judge the product: they share no code with it nor with other tests."""

OF_A_LIBRARY = {"unit/pipelines/kafka/test_aiokafka_patches.py"}
"""Tests that hold the installed version of a library to the private names that the product uses."""

FILES = sorted((ROOT / "tests").rglob("*.py"))
TREES = {file.relative_to(ROOT / "tests").as_posix(): ast.parse(file.read_text()) for file in FILES}


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The modules that a tree imports, wherever it does, each with the name that it gets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", alias.asname or alias.name


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def root_of(node: ast.expr) -> str:
    """The name that an expression begins with: `a` of `a.b.c`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def private_names_of_the_product() -> set[str]:
    """Every private function, class, attribute and constant that the product defines."""
    names: set[str] = set()
    for package in PRODUCT:
        for file in (ROOT / package).rglob("*.py"):
            if ".venv" in file.parts:  # the benchmarks' peers
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    names.add(node.name)
                elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    if root_of(node) == "self":
                        names.add(node.attr)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
    return {name for name in names if is_private(name)}


PRIVATE = private_names_of_the_product()


def private_reaches(tree: ast.AST) -> list[str]:
    attributes = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in PRIVATE
        and root_of(node.value) not in ("self", "cls")
    ]
    names = [
        module
        for module, _ in imported(tree)
        if module.split(".")[0] in PRODUCT and any(map(is_private, module.split(".")))
    ]
    return attributes + names


def patches(tree: ast.AST) -> list[str]:
    """Where a module or class of ours gets another value than it has."""
    ours = {name for module, name in imported(tree) if module.split(".")[0] in (*PRODUCT, "tests")}

    def is_ours(node: ast.expr) -> bool:
        if isinstance(node, ast.Constant):
            return str(node.value).split(".")[0] in PRODUCT
        return root_of(node) in ours

    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rsplit(".", 1)[-1]
            if called in ("setattr", "delattr", "patch", "object") and is_ours(node.args[0]):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Assign):
            found += [
                f"line {node.lineno}: {ast.unparse(node)}"
                for target in node.targets
                if isinstance(target, ast.Attribute) and is_ours(target)
            ]
    return found


def not_shared(name: str) -> set[str]:
    """What a file of tests imports and must not."""
    package = name.split("/")[0]
    allowed = INDEPENDENT.get(package, set(SHARED))
    modules = {module for module, _ in imported(TREES[name])}
    found = {
        module
        for module in modules
        if module.split(".")[0] == "tests" and module.split(".")[1] not in allowed
    }
    if package in INDEPENDENT:
        found |= {module for module in modules if module.split(".")[0] in PRODUCT}
    return found


def test_tests_share_nothing_but_support() -> None:
    assert {name: found for name in TREES if (found := not_shared(name))} == {}


def test_tests_reach_nothing_private() -> None:
    found = {name: private_reaches(tree) for name, tree in TREES.items()}
    assert {
        name: reaches for name, reaches in found.items() if reaches and name not in OF_A_LIBRARY
    } == {}


def test_tests_set_no_constant() -> None:
    found = {name: patches(tree) for name, tree in TREES.items()}
    assert {name: made for name, made in found.items() if made} == {}


@pytest.mark.parametrize(
    ("text", "find"),
    [
        ("sink._store(1)", private_reaches),
        ("self.sink._store(1)", None),
        ("from pipelines.live.faust_app import _agent", private_reaches),
        ("from pipelines import errors\nmonkeypatch.setattr(errors, 'X', 1)", patches),
        ("from pipelines import errors\nerrors.X = 1", patches),
        ("patch('pipelines.errors.X', 1)", patches),
        ("import time\nmonkeypatch.setattr(time, 'time', 1)", None),
        ("row._replace(a=1)", None),
    ],
)
def test_the_walk_finds_what_it_is_for(text: str, find: object) -> None:
    tree = ast.parse(text)
    assert bool(private_reaches(tree)) == (find is private_reaches)
    assert bool(patches(tree)) == (find is patches)
