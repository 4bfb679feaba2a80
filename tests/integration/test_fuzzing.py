"""Whatever is asked, the answer is one that the description of the API allows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry.definitions import Catalog
from serving.app import ServerOptions, create_app
from tests.support.listening import listening_server
from tests.support.served import beat, tick

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tests/support/schemathesis.toml"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
]


@pytest.mark.parametrize(
    "examples", [10, pytest.param(2_000, marks=[pytest.mark.long, pytest.mark.timeout(3_600)])]
)
def test_no_answer_is_outside_the_description(
    recorded: Catalog,
    redis_database: str,
    hot_redis: str,
    postgres_database: str,
    tmp_path: Path,
    examples: int,
) -> None:
    """Schemathesis asks what the description allows, and what it does not."""
    tick(redis_database, recorded, "price", [{"symbol": "AAPL", "price": 2 + i} for i in range(21)])
    held = {"portfolio": "P1", "symbol": "AAPL", "quantity": 3}
    tick(redis_database, recorded, "position", [held])
    beat(redis_database)
    options = ServerOptions(redis_database, hot_redis, postgres_database, compress=True)
    with listening_server(create_app(options)) as url:
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
                *("run", f"{url}/openapi.json"),
                *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
                *("--max-examples", str(examples), "--continue-on-failure", "--no-color"),
                *("--suppress-health-check", "all", "--request-timeout", "20"),
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "tests.support.fuzzed_names",
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0
