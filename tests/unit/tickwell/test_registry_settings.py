"""How the schema registry is reached: what fits together, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme

from pipelines.ticks.wire.schema_registry import RegistryConnection
from tickwell.errors import SettingError
from tickwell.settings import Settings

URL = "https://registry.example:8081"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "text.pem").write_text("no certificate")
    (tmp_path / "password").write_text("se,cr/et\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(**given: str) -> Settings:
    return Settings.load({f"TICKWELL_SCHEMA_REGISTRY{name}": text for name, text in given.items()})


def test_what_is_passed_down(folder: Path) -> None:
    assert load().registry_connection is None
    several = {"": f" {URL} , http://[::1]:8081/path,"}
    assert load(**several).registry_connection == RegistryConnection(
        f"{URL},http://[::1]:8081/path"
    )
    whole = load(
        **{"": URL, "_USERNAME": "u", "_PASSWORD_FILE": str(folder / "password"), "_CA": "ca.pem"}
    )
    assert whole.registry_connection == RegistryConnection(URL, "u", "se,cr/et", "ca.pem")
    assert "se,cr/et" not in repr(whole) + repr(whole.registry_connection)
    assert "schema_registry='https://registry.example:8081'" in repr(whole)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"": "registry:8081"},
            "TICKWELL_SCHEMA_REGISTRY=registry:8081: must be a URL that begins",
        ),
        ({"": f"{URL},ftp://x"}, "must be a URL that begins with http:// or https://"),
        ({"": "https://[::1"}, "must be a URL that begins with http:// or https://"),
        ({"": "https://u:x@h"}, "a user, who goes into TICKWELL_SCHEMA_REGISTRY_USERNAME and"),
        ({"_USERNAME": "u"}, "_USERNAME=u: has no use while TICKWELL_SCHEMA_REGISTRY is not set"),
        ({"_PASSWORD": "x"}, "_PASSWORD=***: has no use while"),
        ({"_CA": "ca.pem"}, "_CA=ca.pem: has no use while"),
        ({"": URL, "_USERNAME": "u"}, "_PASSWORD=***: must be set"),
        ({"": URL, "_PASSWORD": "x"}, "_USERNAME=: must be set"),
        ({"": URL, "_USERNAME": "u:v", "_PASSWORD": "x"}, "must have no colon"),
        (
            {"": "http://h", "_CA": "ca.pem"},
            "has no use while TICKWELL_SCHEMA_REGISTRY is not https",
        ),
        ({"": URL, "_CA": "no.pem"}, "_CA=no.pem: cannot be read: No such file"),
        ({"": URL, "_CA": "text.pem"}, "_CA=text.pem: cannot be used"),
        ({"": URL, "_CA": "-----BEGIN CERTIFICATE"}, "must be the path of the file, not its text"),
    ],
)
def test_what_cannot_work(folder: Path, given: dict[str, str], said: str) -> None:
    assert os.getcwd() == str(folder)
    with pytest.raises(SettingError) as error:
        load(**given)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
