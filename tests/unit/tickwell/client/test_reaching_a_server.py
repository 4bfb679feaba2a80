"""Both clients on the way to a server: its addresses, its URL, proxies and TLS."""

from __future__ import annotations

import socket
import ssl
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.askers import BRIEF, KEY, Asker, one
from tests.support.scripted_http import (
    Script,
    answers,
    full,
)
from tickwell.client.errors import (
    CertificateRefused,
    ConnectionFailed,
    DeadlineExceeded,
    ProxyRefused,
)
from tickwell.errors import SettingError, TickwellError

UNUSABLE = ["socks5://127.0.0.1:1", "nonsense://127.0.0.1:1"]


def with_addresses(*addresses: str) -> Callable[..., list[Any]]:
    """A look-up of names that finds these for some.example."""

    def look_up(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        found = addresses if host == "some.example" else [host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, int(port))) for one in found]

    return look_up


def test_a_call_ends_with_its_deadline_however_many_addresses_there_are(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of them answers a client that connects."""
    addresses = 10
    monkeypatch.setattr(socket, "getaddrinfo", with_addresses(*["127.0.0.1"] * addresses))
    with full() as port:
        client = asker.open(f"http://some.example:{port}")
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            one(asker, client, deadline_seconds=BRIEF)
        assert time.monotonic() - began < BRIEF * addresses / 2


def test_an_address_where_nothing_listens_is_passed_over(
    asker: Asker, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(Script(answers()))
    monkeypatch.setattr(socket, "getaddrinfo", with_addresses("127.0.0.2", "127.0.0.1"))
    client = asker.open(url.replace("127.0.0.1", "some.example"))
    assert one(asker, client)["f"].value == 1.5


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://h:0x1", "host and port"),
        ("http://", "must have a host"),
        ("http://h/?a=b", "question mark"),
        ("ftp://h", "http://"),
    ],
)
def test_a_url_that_names_no_server(asker: Asker, url: str, what: str) -> None:
    with pytest.raises(SettingError, match=what):
        asker.open(url)


@pytest.mark.parametrize("proxy", UNUSABLE)
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "[::1]", "localhost"])
def test_no_proxy_stands_before_this_machine(
    asker: Asker, host: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConnectionFailed):
        asker.call(asker.open(f"http://{host}:1").health)


@pytest.mark.parametrize("proxy", UNUSABLE)
def test_a_proxy_that_cannot_be_used_is_said(
    asker: Asker, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(TickwellError, match=r"^http://h:1 cannot .* ALL_PROXY.* NO_PROXY"):
        asker.open("http://h:1")


def test_a_proxy_is_asked(
    asker: Asker, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(answers())
    monkeypatch.setenv("HTTP_PROXY", serve(script).replace("://", "://u%40:p%3Aw@"))
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert one(asker, asker.open("http://elsewhere.invalid:8001"))["f"].value == 1.5
    assert script.requests[0].path == "http://elsewhere.invalid:8001/features/online"
    assert script.requests[0].headers["proxy-authorization"] == "Basic dUA6cDp3"


def test_a_proxy_that_refuses_is_asked_once_and_its_password_is_told_to_nobody(
    asker: Asker, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(answers(b"", 407))
    monkeypatch.setenv("HTTPS_PROXY", serve(script).replace("://", "://user:SECRET@"))
    for name in ("https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ProxyRefused, match="the proxy answered with 407") as raised:
        one(asker, asker.open("https://elsewhere.invalid"))
    assert "SECRET" not in str(raised.value)
    assert [(sent.method, sent.path) for sent in script.requests] == [
        ("CONNECT", "elsewhere.invalid:443")
    ]
    user = script.requests[0].headers["proxy-authorization"]
    assert b64decode(user.removeprefix("Basic ")) == b"user:SECRET"


def test_a_user_in_the_url_is_the_proxys_and_the_key_goes_beside(
    asker: Asker, serve: Callable[..., str]
) -> None:
    script = Script(answers())
    url = serve(script).replace("://", "://u%40:p%3Aw@")
    one(asker, asker.open(url, api_key=KEY))
    assert script.requests[0].headers["authorization"] == "Basic dUA6cDp3"
    assert script.requests[0].headers["x-api-key"] == KEY


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def https(authority: trustme.CA, serve: Callable[..., str]) -> tuple[str, Script]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    script = Script(answers())
    return serve(script, context), script


def test_tls(
    asker: Asker, authority: trustme.CA, https: tuple[str, Script], tmp_path: Path
) -> None:
    url, _ = https
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    assert one(asker, asker.open(url, tls=str(tmp_path / "ca.pem")))["f"].value == 1.5
    context = ssl.create_default_context()
    authority.configure_trust(context)
    assert one(asker, asker.open(url, tls=context))["f"].value == 1.5


def test_a_server_that_is_not_trusted_learns_nothing(
    asker: Asker, https: tuple[str, Script]
) -> None:
    url, script = https
    with pytest.raises(CertificateRefused, match="TICKWELL_URL_CA"):
        one(asker, asker.open(url, api_key=KEY))
    assert script.requests == []


@pytest.mark.parametrize(("text", "what"), [(None, "cannot be read"), ("no PEM", "in PEM")])
def test_an_authority_that_cannot_be_used(
    asker: Asker, tmp_path: Path, text: str | None, what: str
) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingError, match=what):
        asker.open("https://127.0.0.1:1", tls=str(file))
