"""What can be set: environment variables `TICKWELL_*`, and flags, which win.

They are read once, here, checked at once, and passed down as plain arguments. A secret can be in a
file: `TICKWELL_POSTGRES_FILE` names one that holds what `TICKWELL_POSTGRES` would.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tickwell import kafka_settings, masking, registry_settings, server_settings, store_urls
from tickwell.errors import NotRunning, SettingError, TickwellError

if TYPE_CHECKING:
    from pipelines.kafka.connection import KafkaConnection
    from pipelines.ticks.wire.schema_registry import RegistryConnection

PREFIX = "TICKWELL_"
ADDRESSES = ("kafka", "redis", "redis_hot", "postgres", "url")
"""Settings that say where a stack is; with one of them named none is looked up."""

MOVED = {
    "history": "it is `history` of each [[source]] in the features file now (1,024 unless "
    "declared): declare it there, run `tickwell features apply`, and set this no more"
}
"""Names that were settings, and where what they said is said now."""


class Settings(msgspec.Struct, frozen=True):
    """Every setting with its default. An empty address means: not named."""

    kafka: str = ""
    kafka_security: str = "PLAINTEXT"
    kafka_mechanism: str = "SCRAM-SHA-512"
    kafka_username: str = ""
    kafka_password: str = ""
    kafka_ca: str = ""
    kafka_cert: str = ""
    kafka_key: str = ""
    kafka_key_password: str = ""
    schema_registry: str = ""
    schema_registry_username: str = ""
    schema_registry_password: str = ""
    schema_registry_ca: str = ""
    redis: str = ""
    redis_hot: str = ""
    postgres: str = ""
    url: str = "http://127.0.0.1:8001"
    url_ca: str = ""
    api_key: str = ""
    host: str = "127.0.0.1"
    port: int = 8001
    keep_alive_seconds: int = 75
    compress: Literal["auto", "on", "off"] = "auto"
    keys: str = "auto"
    tls_cert: str = ""
    tls_key: str = ""
    cors_origins: str = ""
    serve_workers: int = 1
    stop_pause_seconds: float = 0.0
    drain_seconds: float = 5.0
    deadline_ms: int = 6_000
    requests_in_flight: int = 2_000
    served_log: str = ""
    served_log_every: int = 1_000
    data: str = "data"
    lake: str = ""
    features: str = ""
    group: str = "tickwell"
    instance: str = ""
    static_member: bool = True
    session: float = 6.0
    partitions: int = 4
    replication: int = -1
    rejected_topic: str = "ticks.rejected"
    capacity: int = 100_000
    cluster: bool = False
    hot: bool = True
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    verify_entities: int = 30

    @classmethod
    def load(cls, environment: Mapping[str, str] = os.environ, **flags: Any) -> Settings:
        """The settings of an environment and flags; a flag that is None is not given.

        Raises `SettingError`, which names the variable.
        """
        settings = cls(**cls._given(environment, flags))
        _check(settings)
        return settings

    @classmethod
    def of_stack(
        cls,
        environment: Mapping[str, str] = os.environ,
        *,
        seen: Callable[[], Sequence[Path]] | None = None,
        **flags: Any,
    ) -> Settings:
        """The settings of a command for a running stack.

        Where environment and flags name no address, the addresses are those of the stack that
        `tickwell up` runs on the data directory. What runs on another directory is never taken:
        it is only named, by `seen`, where nothing runs on the directory that was named, or where
        several run on others. Raises `SettingError`, `NotRunning`, and `TickwellError` for a stack
        that is still starting.
        """
        from tickwell.up import state

        settings, given = cls.load(environment, **flags), cls._given(environment, flags)
        if any(given.get(name) for name in ADDRESSES):
            return settings
        data = Path(settings.data)
        if state.is_running(data):
            return cls.load({**environment, **state.addresses(data)}, **flags)
        others = (seen or state.seen_running)()
        if "data" in given or len(others) > 1:
            raise NotRunning(data, others)
        return settings

    @classmethod
    def _given(cls, environment: Mapping[str, str], flags: Mapping[str, Any]) -> dict[str, Any]:
        """What is named, each in the type of its setting."""
        given: dict[str, Any] = {}
        for name in cls.__struct_fields__:
            value = _read(name, environment)
            if value is not None:
                given[name] = value
        given |= {name: value for name, value in flags.items() if value is not None}
        return {name: _converted(name, value, cls) for name, value in given.items()}

    @property
    def features_path(self) -> Path | None:
        return Path(self.features) if self.features else None

    @property
    def kafka_connection(self) -> KafkaConnection:
        """How Kafka is reached, as everything below the front door takes it."""
        return kafka_settings.connection_of(self)

    @property
    def registry_connection(self) -> RegistryConnection | None:
        """How the schema registry is reached, None where none is named."""
        return registry_settings.connection_of(self)

    @property
    def served_log_path(self) -> Path:
        """The directory of the log of served values."""
        return Path(self.served_log) if self.served_log else Path(self.data) / "served"

    @property
    def lake_path(self) -> Path:
        """The folder of the lake."""
        return Path(self.lake) if self.lake else Path(self.data) / "lake"

    @property
    def instance_name(self) -> str:
        """This process's name in its group; a static member keeps its partitions by it."""
        return self.instance or f"{socket.gethostname()}-{Path(self.data).resolve().name}"

    @property
    def compresses(self) -> bool:
        """Whether large answers are compressed: on the way to the same machine it only costs."""
        if self.compress != "auto":
            return self.compress == "on"
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"

    def need(self, *names: str) -> None:
        """Raises `TickwellError` for the first of `names` that is not set."""
        from tickwell.up import state

        for name in names:
            if getattr(self, name):
                continue
            variable, data = PREFIX + name.upper(), Path(self.data)
            if state.is_running(data):
                raise TickwellError(f'{variable} is not set: eval "$(tickwell env)" sets it')
            raise TickwellError(
                f"{variable} is not set, and {NotRunning(data, state.seen_running())}"
            )

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={self._shown(name)}" for name in self.__struct_fields__)
        return f"Settings({shown})"

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        if not isinstance(value, str):
            return repr(value)
        shown = masking.shown(name, value)
        return shown if shown == masking.MASK else repr(shown)


def moved(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A line for each variable that is set and is no setting any more."""
    return [
        f"{variable} is passed over: {where}"
        for name, where in MOVED.items()
        for variable in (PREFIX + name.upper(), f"{PREFIX}{name.upper()}_FILE")
        if variable in environment
    ]


def _read(name: str, environment: Mapping[str, str]) -> str | None:
    variable = PREFIX + name.upper()
    if variable in environment:
        return environment[variable]
    file = environment.get(f"{variable}_FILE")
    if file is None:
        return None
    try:
        return Path(file).read_text("utf-8").strip()
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except ValueError:
        why = "cannot be read: it does not hold UTF-8 text"
    shown = masking.shown_file(name, file)
    hint = "; it must be the path of a file that holds the value" if shown == masking.MASK else ""
    raise SettingError(f"{variable}_FILE", shown, why + hint)


def _converted(name: str, value: Any, cls: type[Settings]) -> Any:
    kind = {field.name: field.type for field in msgspec.structs.fields(cls)}[name]
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        shown = masking.shown(name, str(value))
        raise SettingError(PREFIX + name.upper(), shown, str(error)) from None


def _check(settings: Settings) -> None:
    def must(right: bool, name: str, what: str) -> None:
        if not right:
            shown = masking.shown(name, str(getattr(settings, name)))
            raise SettingError(PREFIX + name.upper(), shown, what)

    store_urls.check(settings, must)
    kafka_settings.check(settings)
    registry_settings.check(settings)
    server_settings.check(settings, must)
    must(0 < settings.port < 65536, "port", "must be a port, 1 to 65535")
    must(settings.keep_alive_seconds > 0, "keep_alive_seconds", "must be at least 1 second")
    must(1 <= settings.serve_workers <= 64, "serve_workers", "must be 1 to 64 processes")
    must(0 <= settings.stop_pause_seconds <= 600, "stop_pause_seconds", "must be 0 to 600 seconds")
    must(0 < settings.drain_seconds <= 600, "drain_seconds", "must be up to 600 seconds, not 0")
    must(0 < settings.deadline_ms <= 60_000, "deadline_ms", "must be 1 to 60000 milliseconds")
    must(settings.requests_in_flight > 0, "requests_in_flight", "must be at least 1 request")
    must(settings.served_log_every >= 0, "served_log_every", "must be at least 1, or 0 for none")
    must(0 <= settings.metrics_port < 65536, "metrics_port", "must be a port, or 0 for none")
    must(
        0 <= settings.verify_entities <= 6_000,
        "verify_entities",
        "must be 1 to 6000 entities a minute, or 0 for none",
    )
    must(0 < settings.partitions <= 1024, "partitions", "must be 1 to 1024")
    must(
        settings.replication == -1 or 1 <= settings.replication < 2**15,
        "replication",
        "must be at least 1 replica, or -1 for the broker's own number",
    )
    must(settings.capacity >= 1000, "capacity", "must be at least 1000 entities")
    must(2 <= settings.session <= 60, "session", "must be 2 to 60 seconds")
    must(bool(settings.group) and settings.group.isascii(), "group", "must be ASCII text")
