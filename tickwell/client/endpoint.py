"""The server that a client asks: its URL, the key for it, how it is trusted and reached."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from registry.formats import consumer
from tickwell import masking
from tickwell.client.errors import ClientError
from tickwell.errors import SettingError, one_line
from tickwell.settings import Settings

PRINTABLE = range(0x21, 0x7F)
"""The bytes that an API key may have, so that it ends no header."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server. `url` has no path at its end, and `shown` is what errors may say of it."""

    url: str
    shown: str
    headers: Mapping[str, str] = field(repr=False)
    """The headers of every request; the key is among them."""

    tls: ssl.SSLContext | None = None
    """What the server's certificate is checked with, None for plain HTTP."""

    proxy: str | None = field(default=None, repr=False)
    """The URL of a proxy that stands before the server; it may hold a password."""

    @property
    def proxy_headers(self) -> dict[str, str]:
        """What a proxy is told of its user."""
        parts = urlsplit(self.proxy or "")
        return {} if parts.username is None else {"Proxy-Authorization": _basic(parts)}

    @property
    def host(self) -> str:
        """The name or address, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def path(self) -> str:
        """What stands before the path of every route, as behind a reverse proxy; mostly nothing."""
        return urlsplit(self.url).path


def endpoint(
    url: str | None,
    api_key: str | None,
    tls: ssl.SSLContext | str | None,
    agent: str,
    reader: str | None = None,
) -> Endpoint:
    """The server that arguments, the environment or the stack on the data directory name.

    `tls` is a context, or the path of an authority's certificate. `agent` is the client's name for
    itself, `reader` the name under which it is counted what is read. Raises `SettingError`,
    `TickwellError` and, for what can be no such name, ValueError.
    """
    if reader is not None and not consumer.NAME.fullmatch(reader):
        raise ValueError(f"consumer={reader!r}: a name has {consumer.FORM}")
    named = {} if reader is None else {consumer.HEADER: reader}
    settings = Settings.of_stack(url=url, api_key=api_key)
    shown = masking.shown("url", settings.url)
    try:
        parts = urlsplit(settings.url)
        host = (parts.hostname or "").encode("idna").decode()
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise SettingError("TICKWELL_URL", shown, one_line(error)) from None
    if not host or parts.query or parts.fragment:
        what = "must have a host, and nothing behind a question mark or a #"
        raise SettingError("TICKWELL_URL", shown, what)
    where = f"[{host}]{port}" if ":" in host else f"{host}{port}"
    return Endpoint(
        url=f"{parts.scheme}://{where}{parts.path.rstrip('/')}",
        shown=shown,
        headers={
            "User-Agent": agent,
            "Accept-Encoding": "identity",
            **named,
            **_credentials(settings),
        },
        tls=_context(tls or settings.url_ca) if parts.scheme == "https" else None,
        proxy=None if is_loopback(host) else _proxy(parts.scheme, host, shown),
    )


def _credentials(settings: Settings) -> dict[str, str]:
    """The headers that say who asks. A user in the URL is a reverse proxy's, beside the key."""
    key, parts = settings.api_key, urlsplit(settings.url)
    if any(ord(sign) not in PRINTABLE for sign in key):
        what = "an API key has visible ASCII characters alone: was it copied whole, on one line?"
        raise SettingError("TICKWELL_API_KEY", masking.MASK, what)
    if parts.username is None:
        return {"Authorization": f"Bearer {key}"} if key else {}
    headers = {"Authorization": _basic(parts)}
    return {**headers, "X-API-Key": key} if key else headers


def _basic(parts: SplitResult) -> str:
    """What says to HTTP who the user of a URL is."""
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    return f"Basic {b64encode(user).decode()}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, before which no proxy is of use."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _context(tls: ssl.SSLContext | str) -> ssl.SSLContext:
    if isinstance(tls, ssl.SSLContext):
        return tls
    context = ssl.create_default_context()
    if not tls:
        return context
    shown = masking.shown("url_ca", tls)
    try:
        context.load_verify_locations(tls)
    except ssl.SSLError:
        what = "does not hold certificates in PEM"
        raise SettingError("TICKWELL_URL_CA", shown, what) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise SettingError("TICKWELL_URL_CA", shown, what) from None
    return context


def _proxy(scheme: str, host: str, shown: str) -> str | None:
    """The proxy that the environment names for a host. Raises `ClientError` for an unusable one."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise ClientError(
            f"{shown} cannot be reached through the proxy that ALL_PROXY, HTTP_PROXY or "
            "HTTPS_PROXY names (it is none of HTTP); NO_PROXY names hosts that need none"
        )
    return proxy
