"""Why brokers do not answer, as far as librdkafka says: what it reports of its connections.

A request that cannot be sent ends with a timeout, whatever is in its way. The reason comes by
`error_cb` only: a wrong password, a certificate that is not trusted, no broker at the address. And
of a certificate that is refused librdkafka does not say why, so the handshake is made once more.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from time import monotonic

from confluent_kafka import KafkaError

from pipelines.errors import BrokerRefused, BrokerUnavailable
from pipelines.kafka.connection import KafkaConnection

HANDSHAKE_SECONDS = 3.0
"""Seconds for a broker to take part in the handshake that is made to find out why one failed."""

CLOSED_SECONDS = 3.0
"""Seconds in which a broker has closed a connection that it does not understand; it does so at
once, where one that hangs keeps it for longer than `socket.connection.setup.timeout.ms`."""

CLOSED = (
    "it closes each connection before the first answer: if it expects TLS or a user, say so with "
    "TICKWELL_KAFKA_SECURITY"
)
NO_TLS = "it does not speak TLS at this port"
NO_USER = "it takes no user at this port"
USERS = f"{NO_USER}: set TICKWELL_KAFKA_SECURITY to PLAINTEXT, or to SSL where it is encrypted"
CLIENT_CERTIFICATE = (
    "it does not accept the client's certificate, or misses one: set TICKWELL_KAFKA_CERT and "
    "TICKWELL_KAFKA_KEY"
)


class Complaints:
    """Collects what librdkafka reports; `add` is the `error_cb` of one client."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._last: KafkaError | None = None
        self._refusal: KafkaError | None = None
        self._hopeless_at = 0.0
        self._down = self._closed = False
        self._made_at = monotonic()

    def add(self, error: KafkaError) -> None:
        """Remember an error of a connection."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            # librdkafka says nothing of a connection that is only closed, or that is silent
            early = monotonic() - self._made_at < CLOSED_SECONDS
            self._down = True
            self._closed = self._closed or (early and self._last is None)
        else:
            self._last = error
            if self._refusal is None and _refuses(error):
                self._refusal = error
        if not self._hopeless_at and self._down and self.refused:
            self._hopeless_at = monotonic()

    @property
    def refused(self) -> bool:
        """Whether a broker has refused this client; another one may take it."""
        return self._refusal is not None or (self._closed and self._last is None)

    def hopeless_for(self) -> float:
        """Seconds since a broker has refused this client and no other one is up; 0 if not so.

        librdkafka tells once that all are down, before or after the refusal.
        """
        return monotonic() - self._hopeless_at if self._hopeless_at and self.refused else 0.0

    def error(self, otherwise: str) -> BrokerUnavailable:
        """What to raise for a request that got no answer; `otherwise` says so without a reason."""
        servers = self._connection.servers
        if self._refusal is not None:
            return BrokerRefused(servers, _explained(self._refusal, self._connection))
        if self._last is not None:
            return BrokerUnavailable(servers, self._last.str())
        if self._closed:
            return BrokerRefused(servers, CLOSED)
        return BrokerUnavailable(servers, otherwise)


def _refuses(error: KafkaError) -> bool:
    """Whether a broker is there, and the two do not come together."""
    text = error.str()
    return error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) or any(
        part in text for part in ("PLAINTEXT broker listener", "SSL alert")
    )


def _explained(error: KafkaError, connection: KafkaConnection) -> str:
    """What is wrong between the two, and what to do."""
    text = error.str()
    for part, explain in _EXPLANATIONS.items():
        if part in text:
            return explain(connection, text)
    return text


def _password(connection: KafkaConnection, text: str) -> str:
    return (
        f"it refuses the user {connection.username!r} with this password: check "
        "TICKWELL_KAFKA_USERNAME and TICKWELL_KAFKA_PASSWORD, and that it has one for "
        f"{connection.mechanism} (TICKWELL_KAFKA_MECHANISM)"
    )


def _mechanism(connection: KafkaConnection, text: str) -> str:
    offered = text.partition("supported mechanisms:")[2].partition("(after")[0].strip()
    return (
        f"it does not take {connection.mechanism}: set TICKWELL_KAFKA_MECHANISM to one of its "
        f"mechanisms, {offered.replace(',', ', ')}"
    )


def _certificate(connection: KafkaConnection, text: str) -> str:
    refused = refused_certificate(connection)
    authority = connection.ca or "the authorities of this system"
    if refused is None:
        return f"its certificate cannot be verified by {authority}: check TICKWELL_KAFKA_CA"
    if refused.verify_code in (HOSTNAME_MISMATCH, ADDRESS_MISMATCH):
        return (
            f"the host name does not match its certificate ({refused.verify_message.rstrip('.')}): "
            "write in TICKWELL_KAFKA, and in the brokers' advertised.listeners, a name that the "
            "certificate has"
        )
    return (
        f"its certificate is not trusted by {authority} ({refused.verify_message}): set "
        "TICKWELL_KAFKA_CA to the certificate of the authority that signed it"
    )


Explain = Callable[[KafkaConnection, str], str]
_EXPLANATIONS: dict[str, Explain] = {
    "certificate verify failed": _certificate,
    "Unsupported SASL mechanism": _mechanism,
    "Request not valid in current SASL state": lambda connection, text: USERS,
    "SASL authentication error": _password,
    "SSL alert": lambda connection, text: CLIENT_CERTIFICATE,
    "PLAINTEXT broker listener": lambda connection, text: (
        f"{NO_TLS}: set TICKWELL_KAFKA_SECURITY to PLAINTEXT, or to SASL_PLAINTEXT with a user"
    ),
}
"""By a part of librdkafka's text, in the order in which they are looked for."""

HOSTNAME_MISMATCH, ADDRESS_MISMATCH = 62, 64
"""`X509_V_ERR_HOSTNAME_MISMATCH` and `X509_V_ERR_IP_ADDRESS_MISMATCH` of OpenSSL."""


def refused_certificate(connection: KafkaConnection) -> ssl.SSLCertVerificationError | None:
    """Why the certificate of one of the brokers is refused, None where that cannot be seen."""
    context = connection.ssl_context()
    for server in connection.servers.split(",") if context is not None else ():
        host, _, port = server.strip().rpartition(":")
        host = host.strip("[]")
        try:
            with (
                socket.create_connection((host, int(port)), HANDSHAKE_SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=host),  # type: ignore[union-attr]
            ):
                continue
        except ssl.SSLCertVerificationError as error:
            return error
        except OSError:
            continue
    return None
