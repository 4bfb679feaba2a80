"""The services that tests run on: those the environment names, else containers, else our own.

Under CI=true a test that finds no service fails; it never skips.
"""

from __future__ import annotations

import gc
import os
import resource
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import psycopg2
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings

from registry.database import migrations
from registry.database.engine import connect
from tests.support import containers
from tests.support.brokers import startable
from tests.support.cluster import Cluster, cluster
from tests.support.services import embedded
from tests.support.shared_service import shared
from tickwell.embedded.broker import broker

settings.register_profile(
    "tickwell", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("long", settings.get_profile("tickwell"), max_examples=3_000)
settings.register_profile(
    # what fails is enough: the smallest example that fails would take minutes to find
    "mutations",
    settings.get_profile("tickwell"),
    phases=[Phase.explicit, Phase.generate],
    database=None,
)
settings.load_profile("tickwell")

# Tests have many connections at once, each with both of its ends here: more than the 1,024 files
# that an ordinary user's processes begin with.
_, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))

LOG_LINES = 30
"""Lines of a process's log that are shown where its test fails."""

SERVICES = ("TICKWELL_KAFKA", "TICKWELL_REDIS", "TICKWELL_REDIS_HOT", "TICKWELL_POSTGRES")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Four processes, each with stores of its own; none beside pytest where they are shared.

    A test empties the Redis that it uses, so two cannot use the one that the environment names.
    """
    return 0 if any(name in os.environ for name in SERVICES) else 4


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows how the logs of its processes end."""
    report = yield
    running = getattr(item, "funcargs", {}).get("running")
    if report.failed and running is not None:
        for log in sorted(running.logs.glob("*.log")):
            lines = log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
            report.sections.append((f"the end of {log.name}", "\n".join(lines)))
    return report


@pytest.fixture(scope="session")
def data() -> Iterator[Path]:
    """A directory for services. Not pytest's, which is closed: the database is to be in it."""
    place = Path(tempfile.mkdtemp(prefix="tickwell-tests-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(data: Path) -> Iterator[str]:
    """The bootstrap address of an Apache Kafka (of Tansu where there is no Java).

    One for all processes of the run: topics and groups have names that nobody else uses.
    """
    with ExitStack() as stack:
        if "TICKWELL_KAFKA" in os.environ:
            yield os.environ["TICKWELL_KAFKA"]
        elif containers.engine_answers():
            yield stack.enter_context(containers.KafkaContainer()).bootstrap
        else:
            kind = startable()
            run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
            directory = data.with_name(f"tickwell-tests-{run}") if run else data / "shared"
            yield stack.enter_context(shared(directory, lambda: broker(directory / kind, kind)))


@pytest.fixture(scope="session")
def warm_redis(data: Path) -> Iterator[str]:
    """The URL of a Redis for warm data."""
    with ExitStack() as stack:
        if "TICKWELL_REDIS" in os.environ:
            yield os.environ["TICKWELL_REDIS"]
        else:
            yield stack.enter_context(_redis(data, "warm"))


@pytest.fixture(scope="module")
def three(data: Path) -> Iterator[Cluster]:
    """A Redis Cluster of three nodes."""
    with cluster(data / uuid.uuid4().hex) as made:
        yield made
    with warnings.catch_warnings():
        # redis-py leaves the connections of a node that it looks up again to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def hot_redis(data: Path) -> Iterator[str]:
    """The URL of a Redis for hot data."""
    with ExitStack() as stack:
        if "TICKWELL_REDIS_HOT" in os.environ:
            yield os.environ["TICKWELL_REDIS_HOT"]
        else:
            yield stack.enter_context(_redis(data, "hot"))


@pytest.fixture(autouse=True)
def no_rows_in_hot(request: pytest.FixtureRequest) -> None:
    """A test begins without rows and marks of the one before, which may be of another catalog."""
    if "hot_redis" in request.fixturenames:
        with redis.Redis.from_url(request.getfixturevalue("hot_redis")) as client:
            for key in client.scan_iter("th:*"):
                client.delete(key)


@contextmanager
def _redis(data: Path, tier: Literal["warm", "hot"]) -> Iterator[str]:
    if containers.engine_answers():
        with containers.valkey(tier) as container:
            host, port = container.get_container_host_ip(), container.get_exposed_port(6379)
            yield f"redis://{host}:{port}/0"
    else:
        from tickwell.embedded.valkey import valkey

        with embedded(lambda: valkey(data / f"redis-{tier}", tier)) as url:
            yield url


@pytest.fixture(scope="session")
def postgres(data: Path) -> Iterator[str]:
    """The URL of a database in a PostgreSQL server in which databases may be made."""
    with ExitStack() as stack:
        if "TICKWELL_POSTGRES" in os.environ:
            yield os.environ["TICKWELL_POSTGRES"]
        elif containers.engine_answers():
            yield stack.enter_context(containers.postgres()).get_connection_url()
        else:
            from tickwell.embedded.postgres import postgres as server

            yield stack.enter_context(embedded(lambda: server(data / "postgres")))


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """A migrated database that others are copied from."""
    name = f"template_{uuid.uuid4().hex[:8]}"
    _execute(postgres, f"CREATE DATABASE {name}")
    engine = connect(_at(postgres, name))
    migrations.upgrade(engine)
    engine.dispose()
    return name


@pytest.fixture
def postgres_database(postgres: str, template: str) -> Iterator[str]:
    """The URL of a migrated, empty database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    _execute(postgres, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _at(postgres, name)
    _execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_database(warm_redis: str) -> Iterator[str]:
    """The URL of an empty warm Redis."""
    with redis.Redis.from_url(warm_redis) as client:
        client.flushall()
        yield warm_redis


def _at(url: str, database: str) -> str:
    return f"{url.rsplit('/', 1)[0]}/{database}"


def _execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()
