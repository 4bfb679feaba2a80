"""Schemas of a schema registry: asked for once, and waited for while it does not answer.

A registry that is away, refuses or answers with something else says nothing of a message, so it is
never a reason to reject one: `SchemaRegistryUnavailable` is raised, and the run is tried again. Nor
is its own "there is no such schema": it may say otherwise tomorrow, and a replay would decide by
that. So this has an error of its own, which the caller waits for as well, and no memory.

The client is confluent-kafka's, which the extra `avro` brings; it is imported when it is needed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from pipelines.errors import SchemaRegistryUnavailable
from pipelines.runtime.patience import Patience
from pipelines.ticks.wire.frames import SchemaName

TIMEOUT_SECONDS = 10.0
"""Seconds to connect, and between two parts of an answer; the client has no limit of its own."""

MOST_FETCHED = 1_000
"""Schemas that the client keeps before it is replaced by a new one; it forgets none itself."""

SERIALIZED = "serialized"
"""The form of Protobuf schemas that is a FileDescriptorProto in base64."""

MOST_REFERENCES = 100
MOST_SCHEMA_BYTES = 1 << 20
"""Bytes of the text of a schema and of all that it refers to."""

NOT_FOUND = range(404_00, 405_00)
"""Error codes of the registry's own with the status 404. Another server's, as a wrong path gives,
has the code 404 or none."""

URL, USER = "TICKWELL_SCHEMA_REGISTRY", "TICKWELL_SCHEMA_REGISTRY_USERNAME and …_PASSWORD"
WAYS_OUT = {
    **dict.fromkeys((401, 403), f"{USER} say who asks"),
    **dict.fromkeys((301, 302, 303, 307, 308), f"{URL} is to be the URL that it redirects to"),
    404: f"{URL} is to be the registry's own address, with the path if it has one",
}
"""What to do about an answer, by its status."""


@dataclass(frozen=True, slots=True)
class RegistryConnection:
    """The registry at `url` (several, separated by commas), and the user that it asks for.

    `ca` is the path of the authority's certificate (PEM), if it is not one of the system's.
    """

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""


class Schema(NamedTuple):
    """A schema as text, with those that it refers to: each before those that refer to it.

    `kind` is AVRO, PROTOBUF or JSON; the text of a Protobuf schema is a FileDescriptorProto in
    base64. The references are name and text.
    """

    kind: str
    text: str
    references: tuple[tuple[str, str], ...]


class SchemaUnknown(Exception):
    """The registry says that it has no such schema."""

    def __init__(self, name: SchemaName) -> None:
        super().__init__(f"it has no schema {name}")


class SchemaTooLarge(Exception):
    """A schema is larger than a worker reads."""


class SchemaRegistry:
    """The schemas of one registry. One thread asks; any thread may read `patience.reason`.

    `connect` makes a client, `confluent_kafka.schema_registry.SchemaRegistryClient`; `url` is how
    errors name it.
    """

    def __init__(self, url: str, connect: Callable[[], Any]) -> None:
        self.url = url
        self.patience = Patience("the schema registry", (SchemaRegistryUnavailable,))
        self._connect = connect
        self._client: Any = None
        self._fetched = 0

    @classmethod
    def of(cls, connection: RegistryConnection) -> SchemaRegistry:
        """The registry of a connection; needs the extra. Nothing is connected yet."""
        from confluent_kafka.schema_registry import SchemaRegistryClient

        settings: dict[str, Any] = {
            "url": connection.url,
            "timeout": TIMEOUT_SECONDS,
            "max.retries": 0,  # the caller is patient, and says so meanwhile
        }
        if connection.username:
            settings["basic.auth.user.info"] = f"{connection.username}:{connection.password}"
        if connection.ca:
            settings["ssl.ca.location"] = connection.ca
        return cls(connection.url, lambda: SchemaRegistryClient(settings))

    def schema(self, name: SchemaName, form: str | None = None) -> Schema:
        """A schema in a form that the registry is asked for (`SERIALIZED`), or in its own.

        Raises `SchemaUnknown`, `SchemaTooLarge` and `SchemaRegistryUnavailable`.
        """
        with self._answers() as client:
            found = self._fetch(client, name, form)
            if found is not None:
                return self._whole(client, found, form)
        raise SchemaUnknown(name)

    @contextmanager
    def _answers(self) -> Iterator[Any]:
        """A client; what it raises is `SchemaRegistryUnavailable`.

        It is forgotten then: it would keep an answer that holds no schema, and give it again.
        """
        from confluent_kafka.schema_registry import SchemaRegistryError

        try:
            if self._client is None or self._fetched >= MOST_FETCHED:
                self._client, self._fetched = self._connect(), 0
            with self.patience.call():
                yield self._client
        except (SchemaTooLarge, SchemaRegistryUnavailable):
            raise
        except SchemaRegistryError as error:
            self._client = None
            why = f"answers {error.http_status_code}: {_one_line(error.error_message)}"
            raise SchemaRegistryUnavailable(self.url, why + _way_out(error)) from None
        except Exception as error:  # its HTTP client's errors, and those of answers in no JSON
            self._client = None
            why = f"{type(error).__name__}: {_one_line(error)}"
            raise SchemaRegistryUnavailable(self.url, why + _way_out(error)) from None

    def _fetch(self, client: Any, name: SchemaName, form: str | None) -> Any:
        """The client's schema, None where the registry says that there is none."""
        from confluent_kafka.schema_registry import SchemaRegistryError

        self._fetched += 1
        try:
            if isinstance(name, UUID):
                return client.get_schema_by_guid(str(name), fmt=form)
            return client.get_schema(name, fmt=form)
        except SchemaRegistryError as error:
            if _is_missing(error):
                return None
            raise

    def _whole(self, client: Any, found: Any, form: str | None) -> Schema:
        """A schema of the client with what it refers to."""
        references: dict[str, str] = {}
        size = 0

        def text_of(schema: Any) -> str:
            nonlocal size
            if not isinstance(schema.schema_str, str):
                raise ValueError("its answer holds no schema")
            size += len(schema.schema_str)
            if size > MOST_SCHEMA_BYTES or len(references) > MOST_REFERENCES:
                raise SchemaTooLarge(
                    f"it has, with what it refers to, over {MOST_SCHEMA_BYTES} bytes or "
                    f"{MOST_REFERENCES} references"
                )
            if form == SERIALIZED and schema.schema_type == "PROTOBUF":
                _check_serialized(schema.schema_str)
            return str(schema.schema_str)

        def collect(schema: Any, above: tuple[str, ...]) -> None:
            for reference in schema.references or ():
                if reference.name in references or reference.name in above:
                    continue
                other = self._referred_to(client, reference, form)
                text = text_of(other)
                collect(other, (*above, reference.name))
                references[reference.name] = text

        text = text_of(found)
        collect(found, ())
        return Schema(found.schema_type or "AVRO", text, tuple(references.items()))

    def _referred_to(self, client: Any, reference: Any, form: str | None) -> Any:
        """The client's schema of a reference."""
        from confluent_kafka.schema_registry import SchemaRegistryError

        subject, version = reference.subject, reference.version
        try:
            return client.get_version(subject, version, deleted=True, fmt=form).schema
        except SchemaRegistryError as error:
            if _is_missing(error):
                raise SchemaRegistryUnavailable(
                    self.url,
                    f"it has no version {version} of {subject}, which a schema refers to; restore "
                    "it there",
                ) from None
            raise


def _is_missing(error: Any) -> bool:
    """Whether the registry itself says that it does not have what was asked for."""
    return error.http_status_code == 404 and error.error_code in NOT_FOUND


def _check_serialized(text: str) -> None:
    """Raises `ValueError` for the text of a Protobuf schema in another form than base64."""
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError(
            "it gives Protobuf schemas as text: it takes no `format=serialized`, which Confluent's "
            "registry does"
        ) from None


def _way_out(error: Any) -> str:
    """What to do about an error of the client, in brackets; nothing where that is not known."""
    way_out = WAYS_OUT.get(getattr(error, "http_status_code", 0))
    if isinstance(error, json.JSONDecodeError):  # the page of another server
        way_out = WAYS_OUT[404]
    elif "CERTIFICATE_VERIFY_FAILED" in str(error):
        way_out = f"{URL}_CA names the authority that signed its certificate"
    return f" ({way_out})" if way_out else ""


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]
