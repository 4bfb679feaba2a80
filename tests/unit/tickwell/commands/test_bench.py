"""`tickwell bench` on a small server: when it ends with an error, and what it says then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.scripted_http import Script, answers, listening, problem
from tickwell.cli import app

SHORT = ("--connections", "2", "--seconds", "0.2", "--warm-up", "0", "--processes", "1")
TIERED = {"f": {"value": 1.0, "status": "ok", "version": "1.0.0", "tier": "warm"}}
GOOD = answers({"entity": {"symbol": "A"}, "features": TIERED})


@pytest.fixture
def names(tmp_path: Path) -> Path:
    file = tmp_path / "names"
    file.write_text("A\nB\n")
    return file


def bench(url: str, names: Path, *arguments: str, hot: str = "") -> Any:
    environment = {
        "TICKWELL_URL": url,
        "TICKWELL_REDIS": "",
        "TICKWELL_REDIS_HOT": hot,
        "TICKWELL_API_KEY": "",
    }
    command = ("bench", *SHORT, "--feature", "f", "--entities", str(names), *arguments)
    return CliRunner().invoke(app, command, env=environment)


def test_what_the_server_says_ends_it_before_the_load(names: Path) -> None:
    script = Script(problem(404, "Unknown feature", "there is no feature f"))
    with listening(script) as url:
        done = bench(url, names)
    assert done.exit_code != 0
    assert "there is no feature f" in str(done.exception)
    assert len(script.requests) == 1


def test_a_run_without_a_good_answer_is_an_error(names: Path) -> None:
    with listening(Script(GOOD, problem(503, "Too busy"))) as url:
        done = bench(url, names)
    assert done.exit_code == 1
    assert "status 503" in done.stdout
    with listening(Script(GOOD)) as url:
        assert bench(url, names).exit_code == 0


def test_no_ideal_where_it_is_not_known_how_many_rows_an_entity_has(names: Path) -> None:
    nowhere = "redis://127.0.0.1:1/0"
    with listening(Script(GOOD)) as url:
        done = bench(url, names, hot=nowhere)
        named = bench(url, names, "--hot-entities", "1", hot=nowhere)
    assert (done.exit_code, named.exit_code) == (0, 0)
    assert "no ideal beside the hits: TICKWELL_REDIS is not set" in done.stderr
    assert "an ideal cache of" not in done.stdout
    assert "an ideal cache of 1 entities" in named.stdout


def test_entities_that_are_no_text(names: Path) -> None:
    names.write_bytes(b"\xff\xfe")
    done = bench("http://127.0.0.1:1", names)
    assert "does not hold UTF-8 text" in str(done.exception)
