"""The Compose file and the Dockerfile: checked by the real tools, and their commands run for real.

No container engine is needed: what a container would run is run here, with the same settings.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.pipeline import wait_for
from tickwell.embedded.ports import keep_port

COMPOSE = Path(__file__).parents[2] / "compose"
BIN = Path(sys.executable).parent
JOBS = {"migrate"}
OURS = {"migrate", "worker-online", "worker-offline", "server", "demo"}


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The file as Compose understands it, with secrets that its own script writes."""
    place = tmp_path_factory.mktemp("checkout") / "compose"
    shutil.copytree(COMPOSE, place, ignore=shutil.ignore_patterns("secrets", "kafka"))
    subprocess.run([place / "secrets.sh"], check=True)
    told = subprocess.run(
        [
            *(BIN / "docker-compose", "-f", place / "compose.yaml", "--profile", "demo"),
            *("config", "--format", "json"),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def test_images_are_pinned(configured: dict[str, Any]) -> None:
    for name, service in configured["services"].items():
        image, _, tag = service["image"].partition(":")
        assert image
        assert re.match(r"\d+\.\d+", tag), f"{name}: {service['image']}"


def test_every_service_has_a_health_check_or_is_a_job(configured: dict[str, Any]) -> None:
    without = {n for n, service in configured["services"].items() if "healthcheck" not in service}
    assert without == JOBS


def test_only_the_server_is_published_and_only_here(configured: dict[str, Any]) -> None:
    published = {
        name: [port["host_ip"] for port in service["ports"]]
        for name, service in configured["services"].items()
        if service.get("ports")
    }
    assert published == {"server": ["127.0.0.1"]}


def test_no_secret_is_in_an_environment(configured: dict[str, Any]) -> None:
    secrets = {
        name: Path(secret["file"]).read_text() for name, secret in configured["secrets"].items()
    }
    assert len(secrets) == 5
    services = json.dumps(configured["services"])
    for value in secrets.values():
        assert value not in services


def test_containers_are_held_back(configured: dict[str, Any]) -> None:
    for name, service in configured["services"].items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "mem_limit" in service, name
        if name in OURS:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name


def test_the_dockerfile_is_sound() -> None:
    subprocess.run([BIN / "hadolint", COMPOSE / "Dockerfile"], check=True)
    assert "\nUSER 10001\n" in (COMPOSE / "Dockerfile").read_text()


@pytest.mark.timeout(240)
def test_every_command_runs(
    configured: dict[str, Any],
    tmp_path: Path,
    kafka: str,
    redis_database: str,
    hot_redis: str,
    postgres_database: str,
) -> None:
    """migrate, both workers, the server and the demo, with secrets in files: features come out."""
    addresses = {
        "TICKWELL_REDIS_FILE": redis_database,
        "TICKWELL_REDIS_HOT_FILE": hot_redis,
        "TICKWELL_POSTGRES_FILE": postgres_database,
    }
    port, metrics = keep_port(tmp_path / "port"), keep_port(tmp_path / "metrics")

    def start(name: str) -> subprocess.Popen[bytes]:
        service = configured["services"][name]
        settings = {**service["environment"], "TICKWELL_KAFKA": kafka}
        for variable, address in addresses.items():
            secret = tmp_path / Path(settings[variable]).name
            secret.write_text(address)
            settings[variable] = str(secret)
        number = metrics + ("offline" in name)
        here = {"0.0.0.0": "127.0.0.1", "8001": str(port), "9100": str(number)}
        command = [here.get(word, word) for word in service["command"]]
        with (tmp_path / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [BIN / "tickwell", *command],
                env={**os.environ, **settings, "TICKWELL_GROUP": tmp_path.name},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    assert start("migrate").wait(60) == 0, (tmp_path / "migrate.log").read_text()
    processes = [start(name) for name in sorted(OURS - JOBS)]
    try:
        asked = {
            "features": ["current_price", "volatility"],
            "entity_type": "symbol",
            "entity_value": "GOOGL",
        }

        def served() -> bool:
            try:
                answer = httpx.post(f"http://127.0.0.1:{port}/features/online", json=asked)
                values = answer.json().get("features", {}).values()
                ready = httpx.get(f"http://127.0.0.1:{port}/health/ready").is_success
            except httpx.HTTPError:
                return False
            return ready and [value["status"] for value in values] == ["ok", "ok"]

        wait_for("features of the demo are served", served)
        for number in (metrics, metrics + 1):
            assert "tickwell_worker_rows" in httpx.get(f"http://127.0.0.1:{number}/metrics").text
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            assert process.wait(30) in (0, -15)
