"""What a command imports, and when."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BARE = """
import sys
sys.modules.update(dict.fromkeys(("numba", "psycopg2", "redis", "sqlalchemy", "starlette")))
from tickwell.cli import main
main()
"""
"""The command line where importing what takes long is an error."""

COLLECTOR = """
import gc
from tickwell.late_imports import late_imports
try:
    with late_imports():
        print(gc.isenabled())
        raise ImportError
except ImportError:
    print(gc.isenabled(), gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize(
    "command",
    [
        ("demo",),
        ("migrate",),
        ("rebuild-online",),
        ("replay",),
        ("serve",),
        ("worker", "--sink", "online"),
    ],
)
def test_settings_are_checked_before_what_takes_long_is_imported(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BARE, *command],
        env={"TICKWELL_DATA": str(tmp_path / "none"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("tickwell: "), ended.stderr
    assert "nothing runs on" in ended.stderr


def test_the_collector_rests_while_modules_are_imported() -> None:
    """And works again afterwards, whatever happened, without looking at what they have made."""
    ended = subprocess.run(
        [sys.executable, "-c", COLLECTOR], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["False", "True", "True"]


def test_importing_the_package_brings_no_library() -> None:
    """A program that asks no server pays for no client."""
    bare = (
        "import sys, tickwell\n"
        "print({name.split('.')[0] for name in sys.modules} & set('aiohttp urllib3 numpy pyarrow "
        "pandas polars msgspec redis'.split()), tickwell.__all__)"
    )
    ended = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("set() ['AsyncClient', 'Client'")


def test_one_client_brings_no_library_of_the_other_and_none_of_many_entities() -> None:
    for client, other in (("Client", "aiohttp"), ("AsyncClient", "urllib3")):
        bare = (
            f"import sys; from tickwell import {client}; {client}('http://127.0.0.1:1')\n"
            f"print({{'{other}', 'pyarrow', 'pandas', 'polars'}} & set(sys.modules))"
        )
        ended = subprocess.run(
            [sys.executable, "-c", bare], capture_output=True, text=True, check=True
        )
        assert ended.stdout == "set()\n"
