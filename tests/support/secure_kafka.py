"""An Apache Kafka with TLS and users, with certificates of an authority of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support.services import embedded
from tickwell.embedded.broker import kafka
from tickwell.embedded.ports import HOST, keep_port

LISTENERS = {"SECURE": "SASL_SSL", "MUTUAL": "SSL", "CLEAR": "SASL_PLAINTEXT"}
"""The protocol of each listener beside the plain one."""

SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
USER, PASSWORD = "tickwell", "secret/with:signs@ and=more"
LIMITED = "limited"
"""A user of the same password that may do nothing but what a test allows it; the others may all."""


@dataclass(frozen=True)
class SecureKafka:
    """A broker; `ports` has each listener's, and `directory` the PEM files."""

    directory: Path
    ports: dict[str, int]

    def address(self, listener: str) -> str:
        return f"{HOST}:{self.ports[listener]}"

    def file(self, name: str) -> str:
        """The path of `ca`, `other-ca`, `certificate` or `key`."""
        return str(self.directory / f"{name}.pem")

    def settings(self, listener: str, **changes: str) -> dict[str, str]:
        """The settings that reach a listener, or others."""
        found = {"kafka": self.address(listener), "kafka_security": LISTENERS[listener]}
        if listener != "CLEAR":
            found["kafka_ca"] = self.file("ca")
        if listener == "MUTUAL":
            found |= {"kafka_cert": self.file("certificate"), "kafka_key": self.file("key")}
        else:
            found |= {"kafka_username": USER, "kafka_password": PASSWORD}
        return found | changes


@contextmanager
def secure_kafka(directory: Path) -> Iterator[SecureKafka]:
    """A broker in `directory` with a user in each mechanism; MUTUAL asks for a certificate."""
    directory.mkdir(parents=True, exist_ok=True)
    _write_certificates(directory)
    names = ("PLAINTEXT", "CONTROLLER", *LISTENERS)
    files = dict.fromkeys(names, "port") | {"CONTROLLER": "controller-port"}
    files |= {name: f"{name.lower()}-port" for name in LISTENERS}
    server = SecureKafka(directory, {name: keep_port(directory / files[name]) for name in names})
    users = [
        f"{how}=[name={user},password={PASSWORD}]"
        for how in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for user in (USER, LIMITED)
    ]
    with embedded(lambda: kafka(directory, properties=_properties(server), users=users)):
        yield server


def _properties(server: SecureKafka) -> dict[str, str]:
    listeners = ",".join(f"{name}://{HOST}:{port}" for name, port in server.ports.items())
    protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **LISTENERS}
    found = {
        "listeners": listeners,
        "advertised.listeners": listeners,
        "listener.security.protocol.map": ",".join(f"{k}:{v}" for k, v in protocols.items()),
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": server.file("broker"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": server.file("ca"),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.principal.mapping.rules": f"RULE:^.*$/{USER}/",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:ANONYMOUS;User:{USER}",
    }
    for name in ("secure", "clear"):
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            found[f"listener.name.{name}.{mechanism}.sasl.jaas.config"] = SCRAM
        found[f"listener.name.{name}.plain.sasl.jaas.config"] = f'{PLAIN} user_{USER}="{PASSWORD}";'
    return found


def _write_certificates(directory: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    trustme.CA().cert_pem.write_to_path(directory / "other-ca.pem")
    ours, brokers = authority.issue_cert("worker.example"), authority.issue_cert(HOST)
    ours.private_key_pem.write_to_path(directory / "key.pem")
    ours.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    # Kafka reads a key in PKCS 8 only
    key = load_pem_private_key(brokers.private_key_pem.bytes(), None)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = b"".join(pem.bytes() for pem in brokers.cert_chain_pems)
    (directory / "broker.pem").write_bytes(text + chain)
