"""The certificate that the server shows, and its key: read once, and again when they change."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

from tickwell.errors import TickwellError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Seconds between two looks at the files, however many clients connect."""

CERTIFICATE, PRIVATE_KEY = "-----BEGIN CERTIFICATE-----", "PRIVATE KEY-----"
ENCRYPTED = ("BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED")


class CertificateError(TickwellError):
    """The files cannot be used."""


class Files(NamedTuple):
    """The paths of a certificate with its chain, and of its key, "" where the first file has it."""

    certificate: str
    key: str = ""

    @property
    def key_path(self) -> str:
        return self.key or self.certificate


class ServedCertificate:
    """Gives each new connection the newest certificate that can be used.

    Whoever renews it writes two files, one after the other: what does not fit together is not
    taken, and the certificate from before goes on to be shown.
    """

    def __init__(
        self,
        files: Files,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `CertificateError`."""
        self._files = files
        self._look_seconds = look_seconds
        self._clock = clock
        self._seen = _state(files)
        self._context = loaded(files)
        self._looked = clock()

    def context(self) -> ssl.SSLContext:
        """What a server listens with."""
        outer = loaded(self._files)

        def choose(
            connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext
        ) -> None:
            connection.context = self._newest()

        outer.sni_callback = choose  # called for each handshake, also for one that names no server
        return outer

    def _newest(self) -> ssl.SSLContext:
        now = self._clock()
        if now - self._looked < self._look_seconds:
            return self._context
        self._looked = now
        state = _state(self._files)
        if state != self._seen:
            self._seen = state
            try:
                self._context = loaded(self._files)
            except CertificateError as error:
                logger.error("the certificate from before is kept: %s", error)
            else:
                logger.warning("the certificate has changed: new connections get the new one")
        return self._context


def loaded(files: Files) -> ssl.SSLContext:
    """A context with what is in the files now. Raises `CertificateError`."""
    if CERTIFICATE not in _read("TICKWELL_TLS_CERT", files.certificate):
        raise CertificateError(
            f"TICKWELL_TLS_CERT={files.certificate}: holds no certificate in PEM: name the file "
            "with the certificate and those of its chain"
        )
    setting = "TICKWELL_TLS_KEY" if files.key else "TICKWELL_TLS_CERT"
    key = _read(setting, files.key_path)
    if PRIVATE_KEY not in key:
        raise CertificateError(
            f"{setting}={files.key_path}: holds no private key in PEM: name the key's file by "
            "TICKWELL_TLS_KEY (--tls-key)"
        )
    if any(sign in key for sign in ENCRYPTED):
        raise CertificateError(
            f"{setting}={files.key_path}: the key is encrypted, and nobody is there to be asked "
            "for its password: write it out by `openssl pkey -in FILE -out NEW`, readable for the "
            "server's user alone"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password to give, OpenSSL would ask for one at the terminal.
        context.load_cert_chain(files.certificate, files.key_path, password=lambda: "")
    except ssl.SSLError as error:
        fits = "MISMATCH" not in (error.reason or "")
        raise CertificateError(
            f"TICKWELL_TLS_CERT={files.certificate}: cannot be used: {error.reason}"
            if fits
            else f"TICKWELL_TLS_CERT={files.certificate} and {files.key_path} do not fit together: "
            "the key is of another certificate"
        ) from None
    except OSError as error:  # it was removed in this moment
        raise CertificateError(f"{files.certificate}: cannot be read: {error.strerror}") from None
    return context


def _read(setting: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise CertificateError(f"{setting}={path}: cannot be read: {error.strerror}") from None


def _state(files: Files) -> tuple[object, ...]:
    """What differs once one of the files has changed, or another one is in its place."""
    found: list[object] = []
    for path in (files.certificate, files.key_path):
        try:
            status = os.stat(path)
        except OSError as error:
            found.append(error.errno)
        else:
            found.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)
