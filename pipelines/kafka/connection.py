"""How the brokers are reached: addresses, encryption and the user, in the words of each client.

Two clients are used: confluent-kafka (librdkafka) to produce and to administer, aiokafka to read.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from confluent_kafka import KafkaError

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
"""Kafka's own names: encrypted or not, and with a user (SASL) or without one."""

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
"""How the password is proven; with PLAIN the broker is sent the password itself."""

ANSWER_SECONDS = 10.0
"""Seconds after which aiokafka gives up a request, and asks another node. It picks the node that it
asks for metadata at random, and one that is frozen keeps its connections: until that request ends,
nobody hears that its partitions have new leaders, which they have after 9 s by Kafka's default."""

PROTOCOLS: tuple[str, ...] = get_args(Protocol)
MECHANISMS: tuple[str, ...] = get_args(Mechanism)


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """The brokers `servers` (`host:port`, separated by commas), and what they ask of a client.

    `ca`, `certificate` and `key` are the paths of PEM files: the authority that signed the brokers'
    certificates (the system's authorities without one), and the client's own certificate with its
    key. The secrets are not in its `repr`.
    """

    servers: str
    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    certificate: str = ""
    key: str = ""
    key_password: str = field(default="", repr=False)

    @property
    def encrypted(self) -> bool:
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def has_user(self) -> bool:
        return self.protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    def librdkafka(self, failed: Callable[[KafkaError], None] | None = None) -> dict[str, Any]:
        """Settings of confluent-kafka's clients, which print nothing.

        `failed` is called, while the client is polled, with each failure of a connection.
        """
        settings: dict[str, Any] = {
            "bootstrap.servers": self.servers,
            "security.protocol": self.protocol,
            "log_level": 0,
        }
        if failed is not None:
            settings["error_cb"] = failed
        if self.has_user:
            settings["sasl.mechanism"] = self.mechanism
            settings["sasl.username"] = self.username
            settings["sasl.password"] = self.password
        if self.encrypted:
            files = {
                "ssl.ca.location": self.ca,
                "ssl.certificate.location": self.certificate,
                "ssl.key.location": self.key,
                "ssl.key.password": self.key_password,
            }
            settings |= {name: value for name, value in files.items() if value}
        return settings

    def aiokafka(self) -> dict[str, Any]:
        """Arguments of aiokafka's clients. Raises as `ssl_context`."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.servers.split(","),
            "security_protocol": self.protocol,
            "ssl_context": self.ssl_context(),
        }
        if self.has_user:
            arguments["sasl_mechanism"] = self.mechanism
            arguments["sasl_plain_username"] = self.username
            arguments["sasl_plain_password"] = self.password
        return arguments

    def ssl_context(self) -> ssl.SSLContext | None:
        """What certificates are checked with, and shown; None where nothing is encrypted.

        The name of a broker must be that of its certificate. Raises `OSError`, of which
        `ssl.SSLError` is one, for files that cannot be used.
        """
        if not self.encrypted:
            return None
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.certificate:
            # a function, as OpenSSL would ask at the terminal for a password that is not given
            context.load_cert_chain(self.certificate, self.key or None, lambda: self.key_password)
        return context
