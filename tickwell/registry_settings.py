"""The settings that say how the schema registry is reached, checked before anything connects."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tickwell import masking
from tickwell.errors import SettingError

if TYPE_CHECKING:
    from pipelines.ticks.wire.schema_registry import RegistryConnection
    from tickwell.settings import Settings

PREFIX = "TICKWELL_"
REGISTRY = "schema_registry"
ACCESS = ("schema_registry_username", "schema_registry_password", "schema_registry_ca")
"""Settings that belong to the address in TICKWELL_SCHEMA_REGISTRY."""


def connection_of(settings: Settings) -> RegistryConnection | None:
    """The value that is passed down, what `check` has checked; None where no registry is named."""
    from pipelines.ticks.wire.schema_registry import RegistryConnection

    if not settings.schema_registry:
        return None
    return RegistryConnection(
        url=",".join(_urls(settings)),
        username=settings.schema_registry_username,
        password=settings.schema_registry_password,
        ca=settings.schema_registry_ca,
    )


def check(settings: Settings) -> None:
    """Raises `SettingError` for an address or a combination that cannot work."""
    if "@" in settings.schema_registry:
        raise _error(
            settings,
            REGISTRY,
            f"must be a URL without a user, who goes into {PREFIX}SCHEMA_REGISTRY_USERNAME and "
            f"{PREFIX}SCHEMA_REGISTRY_PASSWORD",
        )
    is_shown = masking.shown(REGISTRY, settings.schema_registry) == settings.schema_registry
    if not (is_shown and all(map(_is_address, _urls(settings)))):  # errors show it
        raise _error(
            settings,
            REGISTRY,
            "must be a URL that begins with http:// or https://, or several with commas",
        )
    for name in ACCESS:
        if getattr(settings, name) and not settings.schema_registry:
            raise _error(settings, name, f"has no use while {PREFIX}SCHEMA_REGISTRY is not set")
    _check_user(settings)
    _check_authority(settings)


def _urls(settings: Settings) -> list[str]:
    return [url.strip() for url in settings.schema_registry.split(",") if url.strip()]


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # brackets that hold no address, or no port after the colon
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def _check_user(settings: Settings) -> None:
    username, password = settings.schema_registry_username, settings.schema_registry_password
    if ":" in username:
        raise _error(settings, "schema_registry_username", "must have no colon, as HTTP has it")
    for name, other in (("username", password), ("password", username)):
        if other and not getattr(settings, f"{REGISTRY}_{name}"):
            raise _error(
                settings, f"{REGISTRY}_{name}", "must be set: only one of user and password is"
            )


def _check_authority(settings: Settings) -> None:
    name, path = "schema_registry_ca", settings.schema_registry_ca
    if masking.is_pem(path):
        raise SettingError(
            PREFIX + name.upper(), "-----BEGIN…", "must be the path of the file, not its text"
        )
    if not path:
        return
    if not all(url.startswith("https://") for url in _urls(settings)):
        raise _error(settings, name, f"has no use while {PREFIX}SCHEMA_REGISTRY is not https://")
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        raise _error(
            settings, name, f"cannot be used: {error.reason or 'is no PEM file'}"
        ) from None
    except OSError as error:
        raise _error(settings, name, f"cannot be read: {error.strerror}") from None


def _error(settings: Settings, name: str, what: str) -> SettingError:
    shown = masking.shown(name, getattr(settings, name))
    return SettingError(PREFIX + name.upper(), shown, what)
