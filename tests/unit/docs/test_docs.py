"""What the documentation names exists: paths, tests, links, commands, settings and reasons."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest
import typer
from starlette.routing import Route

from pipelines.ticks.rejection_reasons import REASONS
from registry.features_file import read
from registry.formats.status import Status
from serving.api.scopes import scope_needed
from serving.app import ServerOptions, create_app
from tests.support.pages import anchors, section
from tickwell.cli import app
from tickwell.settings import PREFIX, Settings

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
DESIGN = ROOT / "docs/design.md"
RECORDS = {"fault-run.md", "mutations.md"}
"""Pages that a command wrote: they name what existed when it ran."""

PAGES = [
    *(README, ROOT / "benchmarks/README.md"),
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in RECORDS),
]

PATH = re.compile(
    r"(?<![\w/:.-])[\w.-]+(?:/[\w.-]+)+\.(?:py|md|toml|sql|lua|yaml|xml|sh|svg|txt)\b"
)
TEST = re.compile(r"([\w./-]*\.py)?::(test_\w+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (.+?) \|", re.MULTILINE)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def found(page: Path, name: str) -> Path | None:
    """The file of a name that is relative to the root, to `tests/` or to the page's folder."""
    for folder in (ROOT, ROOT / "tests", page.parent):
        if (folder / name).exists():
            return folder / name
    return None


@cache
def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@every_page
def test_every_path_exists(page: Path) -> None:
    named = set(PATH.findall(page.read_text()))
    assert {name for name in named if found(page, name) is None} == set()


@every_page
def test_every_test_exists(page: Path) -> None:
    """Of `file.py::test_name`, and of `::test_name`, which is in the file that was named last."""
    missing, file = [], None
    for name, test in TEST.findall(page.read_text()):
        file = found(page, name) if name else file
        if file is None or test not in functions(file):
            missing.append(f"{name}::{test}")
    assert not missing, "\n".join(missing)


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@every_page
def test_commands_and_their_options_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in shell_lines(page.read_text()):
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), line
        if words[:1] == ["tickwell"]:
            command, *rest = commands[words[1]], *words[2:]
            while rest and rest[0] in getattr(command, "commands", ()):
                command = command.commands[rest.pop(0)]
            options = {
                option
                for parameter in command.params
                for option in (*parameter.opts, *parameter.secondary_opts)
            }
            assert {word for word in words if word.startswith("--")} <= options, line


def shell_lines(text: str) -> Iterator[str]:
    """Lines of code that begin with `make` or `tickwell`."""
    for block in CODE.findall(text):
        yield from re.findall(r"^(?:make|tickwell) [^\n&]+", block, re.MULTILINE)


def test_the_table_of_settings_has_every_setting() -> None:
    rows = re.findall(r"^\| `(TICKWELL_\w+)` \| (.+?) \|", section(README, "## Settings"), re.M)
    fields = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    assert [name for name, _ in rows if rows.count(name) > 1] == []
    assert {name for name, _ in rows} == {PREFIX + name.upper() for name in fields}
    for name, shown in rows:
        default = fields[name.removeprefix(PREFIX).lower()]
        if default == "":  # the table says in words what stands for it
            words = "none", "the shipped file", "host and data directory", "in the data directory"
            assert shown in words, name
        else:
            assert shown == f"`{_spelled(default)}`", name


def test_the_table_of_scopes_has_the_routes_that_exist() -> None:
    nowhere = "redis://127.0.0.1:1/0"
    options = ServerOptions(nowhere, nowhere, "postgresql://u:p@127.0.0.1:1/none")
    routes = [route for route in create_app(options).routes if isinstance(route, Route)]
    posted = {
        re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for route in routes
        if "POST" in (route.methods or ())
    }
    rows = dict(
        re.findall(r"^\| (.+?) \| (.+) \|$", section(README, "## Who may ask the server"), re.M)
    )
    for scope in ("read", "write"):
        named = set(re.findall(r"(?<=[ `])/[\w/{}-]+", rows[f"`{scope}`"]))
        assert named == {path for path in posted if scope_needed("POST", path) == scope}


def _spelled(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize(
    ("page", "heading"),
    [(README, "### Rejected ticks"), (DESIGN, "## Ticks and rejection reasons")],
    ids=["README.md", "design.md"],
)
def test_every_rejection_reason_is_explained_in_order(page: Path, heading: str) -> None:
    first_cells = ROW.findall(section(page, heading))
    assert first_cells[1:] == [f"`{reason}`" for reason in REASONS]


@pytest.mark.parametrize(
    ("page", "heading"),
    [(README, "### Over HTTP"), (DESIGN, "### 5. Honest answers")],
    ids=["README.md", "design.md"],
)
def test_every_status_is_explained(page: Path, heading: str) -> None:
    first_cells = ROW.findall(section(page, heading))
    assert sorted(first_cells[1:]) == sorted(f"`{status}`" for status in Status)


def test_every_shipped_feature_is_in_the_readme() -> None:
    shipped = {feature.name for feature in read().features}
    named = re.findall(r"`(\w+)`", " ".join(ROW.findall(section(README, "## Read features"))))
    assert shipped <= set(named)
