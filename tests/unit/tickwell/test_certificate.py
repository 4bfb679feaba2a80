"""The server's certificate: what is refused of files, and what a client sees when they change."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from cryptography.hazmat.primitives import serialization

from tests.support.certificates import issue, trusting
from tickwell.certificate import CertificateError, Files, ServedCertificate, loaded

HOST, NAME = "127.0.0.1", "tickwell.example"
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


async def shown(
    server: asyncio.Server, trust: ssl.SSLContext, name: str | None = None
) -> tuple[int, str]:
    """The serial number of the certificate that a new client is shown, and the version of TLS."""
    address = server.sockets[0].getsockname()
    _, writer = await asyncio.open_connection(*address, ssl=trust, server_hostname=name or HOST)
    try:
        found: Any = writer.get_extra_info("peercert")
        return int(found["serialNumber"], 16), writer.get_extra_info("ssl_object").version()
    finally:
        writer.close()
        await writer.wait_closed()


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("name", [None, NAME], ids=["by address", "by name"])
def test_a_renewed_certificate_is_shown_to_new_clients(
    authority: trustme.CA,
    tmp_path: Path,
    loop: Callable[[], asyncio.AbstractEventLoop],
    name: str | None,
) -> None:
    files = issue(authority, tmp_path, HOST, NAME)
    trust = trusting(authority)

    async def renew() -> None:
        certificate = ServedCertificate(files, look_seconds=0)
        context = certificate.context()
        async with await asyncio.start_server(hang_up, HOST, 0, ssl=context) as server:
            first, version = await shown(server, trust, name)
            assert version == "TLSv1.3"
            assert (await shown(server, trust, name))[0] == first
            key = Path(files.key).read_bytes()
            issue(authority, tmp_path, HOST, NAME)
            renewed = Path(files.key).read_bytes()
            Path(files.key).write_bytes(key)  # as when the second file is not written yet
            assert (await shown(server, trust, name))[0] == first
            Path(files.key).write_bytes(renewed)
            second, _ = await shown(server, trust, name)
            assert second != first
            Path(files.certificate).unlink()
            assert (await shown(server, trust, name))[0] == second

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(renew())


def test_files_are_looked_at_once_in_a_while(authority: trustme.CA, tmp_path: Path) -> None:
    files, now = issue(authority, tmp_path, HOST), 0.0
    trust = trusting(authority)

    async def renew() -> None:
        nonlocal now
        certificate = ServedCertificate(files, look_seconds=1, clock=lambda: now)
        context = certificate.context()
        async with await asyncio.start_server(hang_up, HOST, 0, ssl=context) as server:
            first = await shown(server, trust)
            issue(authority, tmp_path, HOST)
            now = 0.5
            assert await shown(server, trust) == first
            now = 1.5
            assert await shown(server, trust) != first

    asyncio.run(renew())


def test_no_older_tls(authority: trustme.CA, tmp_path: Path) -> None:
    context = loaded(issue(authority, tmp_path, HOST))
    old, newer = trusting(authority), trusting(authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")  # else it is the client that refuses
    newer.maximum_version = ssl.TLSVersion.TLSv1_2

    async def connect() -> None:
        async with await asyncio.start_server(hang_up, HOST, 0, ssl=context) as server:
            assert (await shown(server, newer))[1] == "TLSv1.2"
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await shown(server, old)

    asyncio.run(connect())


def test_a_key_in_the_file_of_the_certificate(authority: trustme.CA, tmp_path: Path) -> None:
    files = issue(authority, tmp_path, HOST)
    both = tmp_path / "both.pem"
    both.write_bytes(Path(files.key).read_bytes() + Path(files.certificate).read_bytes())
    assert loaded(Files(str(both)))
    with pytest.raises(CertificateError, match=r"holds no private key in PEM.*--tls-key"):
        loaded(Files(files.certificate))


def test_what_is_wrong_with_files_is_said(authority: trustme.CA, tmp_path: Path) -> None:
    right = issue(authority, tmp_path, HOST)
    other = issue(authority, tmp_path / "other", HOST)
    private = serialization.load_pem_private_key(Path(right.key).read_bytes(), None)
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    broken, absent = tmp_path / "broken.pem", tmp_path / "absent.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for certificate, key, said in (
        (absent, right.key, f"TICKWELL_TLS_CERT={absent}: cannot be read: No such file"),
        (right.certificate, absent, f"TICKWELL_TLS_KEY={absent}: cannot be read: No such file"),
        (tmp_path, right.key, "cannot be read: Is a directory"),
        (right.key, right.key, "holds no certificate in PEM"),
        (right.certificate, right.certificate, "TICKWELL_TLS_KEY=.*holds no private key in PEM"),
        (right.certificate, encrypted, "the key is encrypted.*openssl pkey"),
        (right.certificate, other.key, "do not fit together: the key is of another certificate"),
        (broken, right.key, "TICKWELL_TLS_CERT=.*broken.pem: cannot be used"),
    ):
        with pytest.raises(CertificateError, match=said):
            ServedCertificate(Files(str(certificate), str(key)))
