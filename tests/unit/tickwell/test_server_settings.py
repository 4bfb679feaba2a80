"""Who may ask the server: by its address, and by what is set."""

from __future__ import annotations

import pytest

from tickwell.errors import SettingError
from tickwell.server_settings import cors_origins, is_loopback, needs_keys
from tickwell.settings import Settings


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.9.10", "::1", "localhost")),
        *((host, True) for host in ("::ffff:127.0.0.1", "127.1")),
        *((host, False) for host in ("0.0.0.0", "::", "", "10.0.0.1", "192.168.1.2", "fe80::1")),
        *((host, False) for host in ("::ffff:10.0.0.1", "128.0.0.1", "no.such.host.invalid")),
        *((host, False) for host in ("127.0.0.1.", "a" * 300, "\udcff")),
    ],
)
def test_loopback_is_what_is_reached_from_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("keys", ["auto", "required", "none"])
def test_the_address_decides_unless_a_setting_does(host: str, keys: str) -> None:
    settings = Settings.load({"TICKWELL_HOST": host, "TICKWELL_KEYS": keys})
    expected = {"auto": host == "0.0.0.0", "required": True, "none": False}
    assert needs_keys(settings) is expected[keys]
    assert needs_keys(Settings.load({})) is False


@pytest.mark.parametrize("keys", ["", "yes", "Auto", "off"])
def test_what_is_no_answer_to_whether_keys_are_needed(keys: str) -> None:
    with pytest.raises(SettingError, match=f"TICKWELL_KEYS={keys}: must be auto, required or none"):
        Settings.load({"TICKWELL_KEYS": keys})


def test_a_key_without_a_certificate() -> None:
    with pytest.raises(SettingError, match=r"TICKWELL_TLS_KEY=.*TICKWELL_TLS_CERT is not set"):
        Settings.load({"TICKWELL_TLS_KEY": "/etc/ssl/key.pem"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://app.example", ("https://app.example",)),
        (" http://localhost:3000 , https://[::1] ,", ("http://localhost:3000", "https://[::1]")),
    ],
)
def test_origins(text: str, expected: tuple[str, ...]) -> None:
    assert cors_origins(Settings.load({"TICKWELL_CORS_ORIGINS": text})) == expected


@pytest.mark.parametrize(
    "text", ["app.example", "https://app.example/", "https://a.example,*", "https://*.example"]
)
def test_what_no_browser_calls_an_origin(text: str) -> None:
    with pytest.raises(SettingError, match="TICKWELL_CORS_ORIGINS"):
        Settings.load({"TICKWELL_CORS_ORIGINS": text})
