"""Certificates of an authority that a test makes, in files as a server reads them."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

from tickwell.certificate import Files


def issue(authority: trustme.CA, directory: Path, *names: str) -> Files:
    """Writes a new certificate for `names` and its key, in place of those that are there."""
    directory.mkdir(parents=True, exist_ok=True)
    made = authority.issue_cert(*names)
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    made.private_key_pem.write_to_path(key)
    return Files(str(certificate), str(key))


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """The context of a client that believes this authority alone."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
