"""The services as containers, as far as no engine is needed: what is asked of one."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support import containers
from tickwell.embedded.ports import HOST, keep_port

COMPOSE = Path(__file__).parents[2] / "compose/compose.yaml"


class Engine(BaseHTTPRequestHandler):
    """What a Docker engine says of itself before anything is asked of it."""

    def do_GET(self) -> None:
        body = json.dumps({"ApiVersion": "1.44"}) if self.path.endswith("/version") else "OK"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An address at which an engine answers."""
    with ThreadingHTTPServer((HOST, 0), Engine) as server:
        Thread(target=server.serve_forever).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{HOST}:{server.server_address[1]}")
        containers.engine_answers.cache_clear()
        yield
        containers.engine_answers.cache_clear()
        server.shutdown()
    gc.collect()  # a connection that was left open is a warning, so an error


@pytest.mark.usefixtures("engine")
def test_containers_can_be_asked_for() -> None:
    assert containers.engine_answers()
    kafka = containers.KafkaContainer()
    warm, hot = containers.valkey("warm"), containers.valkey("hot")
    postgres = containers.postgres()
    assert list(kafka.ports) == ["9092"]
    assert "noeviction" in str(warm._command)
    assert "allkeys-lfu" in str(hot._command)
    for container in (kafka, warm, hot, postgres):
        container.get_docker_client().client.close()


def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://{HOST}:{keep_port(tmp_path / 'port')}")
    containers.engine_answers.cache_clear()
    assert not containers.engine_answers()
    containers.engine_answers.cache_clear()


@pytest.mark.parametrize("image", [containers.KAFKA, containers.VALKEY, containers.POSTGRES])
def test_they_are_the_images_that_are_deployed(image: str) -> None:
    assert f"image: {image}\n" in COMPOSE.read_text()
