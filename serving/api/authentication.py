"""Who may ask: a middleware that lets a request pass if it has an API key with the right scope.

It is plain ASGI, in front of everything that answers. A key that was seen before costs two look-ups
in dictionaries: what the bytes of a header mean is worked out once, and remembered until the keys
change.

Nothing here compares a secret with what a client sends. A header is looked up among those that were
sent before, by a hash with a seed of the process, and a key that is new by its SHA-256: however
long that takes tells nothing of any other key's text.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as RequestScope

from registry.formats import api_key
from serving.api import problems
from serving.api.memo import Memo
from serving.api.request_log import KEY_NAME, BoundedLog, described
from serving.api.scopes import scope_needed
from serving.errors import KeyMissing, KeyRefused, NotReady, ScopeMissing, ServingError
from serving.metrics import Metrics
from serving.watch.api_keys import Keyring

AUTHORIZATION, X_API_KEY = b"authorization", b"x-api-key"
HEADERS = frozenset({AUTHORIZATION, X_API_KEY})
BEARER = b"bearer"
MEMO_BYTES = 1_000_000
"""Memory for headers that are valid, and as much again for those that are not."""

LONGEST_HEADER = 256
"""Bytes of a header that may hold a key; longer ones are not remembered."""

HOW = "send it as `Authorization: Bearer tw_...` or as `X-API-Key: tw_...`"

REASONS: Mapping[type[ServingError], str] = {
    KeyMissing: "no key",
    KeyRefused: "not valid",
    ScopeMissing: "no scope",
    NotReady: "keys not known",
}
"""What metrics call each refusal."""

logger = logging.getLogger(__name__)

Header = tuple[bytes, bytes]


class KnownKeys(Protocol):
    """Where the keys of now are (`serving.watch.api_keys`)."""

    @property
    def keyring(self) -> Keyring:
        """The same object until they change. Raises `NotReady`."""
        ...


class Identity(NamedTuple):
    """Whose a request is."""

    key: str
    """The name of the key."""

    scopes: frozenset[str]
    expires: float | None
    """Unix seconds."""


class Refusal(NamedTuple):
    """Why a header is refused: the error that is raised for each request with it."""

    kind: type[ServingError]
    detail: str
    context: Mapping[str, str] = {}


class KeyCheck:
    """Says whose a request is, and whether its key has the scope that is needed."""

    def __init__(self, keys: KnownKeys, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._keyring: Keyring = {}
        self._valid: Memo[Header, Identity] = Memo(MEMO_BYTES)
        self._refused: Memo[Header, Refusal] = Memo(MEMO_BYTES)

    def identity(self, given: Sequence[Header]) -> Identity:
        """Whose the key in these headers is. Raises `KeyMissing`, `KeyRefused` and `NotReady`."""
        keyring = self._keys.keyring
        if keyring is not self._keyring:
            self._keyring = keyring
            self._valid.clear()
            self._refused.clear()
        header = given[0] if len(given) == 1 else _only(given)
        known = self._valid.get(header)
        if known is not None:
            return known
        found = self._refused.get(header) or _looked_up(header, keyring)
        size = 2 * len(header[1])
        if isinstance(found, Refusal):
            if size <= 2 * LONGEST_HEADER and header not in self._refused:
                self._refused.keep(header, found, size + len(found.detail))
            raise found.kind(found.detail, **found.context)
        return self._valid.keep(header, found, size)

    def check(self, identity: Identity, needed: str) -> None:
        """Raises `KeyRefused` for a key that has expired, `ScopeMissing`."""
        if identity.expires is not None and identity.expires <= self._clock():
            over = datetime.fromtimestamp(identity.expires, UTC).isoformat(timespec="seconds")
            raise KeyRefused(f"the key {identity.key!r} expired at {over}: use a newer one")
        if needed not in identity.scopes:
            allowed = " and ".join(sorted(identity.scopes))
            raise ScopeMissing(
                f"the key {identity.key!r} has the scope {allowed}, and this needs {needed}: use "
                f"a key that has it (`tickwell keys create NAME --scope {needed}` makes one)",
                scope=needed,
            )


class Authentication:
    """The middleware. Requests are refused with 401 and 403, and 503 while no keys are known."""

    def __init__(
        self,
        app: ASGIApp,
        keys: KnownKeys,
        metrics: Metrics,
        log: BoundedLog | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._keys = KeyCheck(keys, clock)
        self._metrics = metrics
        self._log = log or BoundedLog(logger)

    async def __call__(self, scope: RequestScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no other protocol is spoken, and none is let pass
        needed = scope_needed(scope["method"], scope["path"])
        if needed is not None:
            try:
                given = [(name, value) for name, value in scope["headers"] if name in HEADERS]
                identity = self._keys.identity(given)
                scope[KEY_NAME] = identity.key
                self._keys.check(identity, needed)
            except ServingError as error:
                await self._refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _refuse(
        self, error: ServingError, scope: RequestScope, receive: Receive, send: Send
    ) -> None:
        response = problems.document_of(error, scope)
        self._metrics.refused[REASONS[type(error)]] += 1
        if not isinstance(error, NotReady):
            fields = {**described(scope), **error.context, "status": response.status_code}
            self._log.warning(error.detail, fields)
        await response(scope, receive, send)


def _only(given: Sequence[Header]) -> Header:
    """The header with the key, of none or several. Raises `KeyMissing` and `KeyRefused`.

    A user and a password, which a proxy in between may have asked for, may stand beside it.
    """
    if not given:
        raise KeyMissing(f"this needs an API key: {HOW}; `tickwell keys create` makes one")
    keys = [h for h in given if h[0] == X_API_KEY or _is_bearer(h)]
    if len(keys) != 1:
        raise KeyRefused(f"the request has {len(given)} headers that may hold an API key: send one")
    return keys[0]


def _looked_up(header: Header, keyring: Keyring) -> Identity | Refusal:
    """Whose the key in a header is, by its SHA-256."""
    name, text = header
    if name == AUTHORIZATION:
        if not _is_bearer(header):
            detail = f"the header Authorization has another scheme than Bearer: {HOW}"
            return Refusal(KeyRefused, detail)
        text = text[len(BEARER) :]
    text = text.strip(b" \t")
    if not text:
        return Refusal(KeyMissing, f"the header for the API key is empty: {HOW}")
    flaw = api_key.flaw(text)
    if flaw:
        return Refusal(KeyRefused, f"this is no API key: {flaw}")
    sha256 = api_key.digest(text)
    key = keyring.get(sha256)
    if key is None:
        detail = "this API key is not valid here: it was revoked, or is another server's"
        return Refusal(KeyRefused, detail, {"fingerprint": api_key.fingerprint(sha256)})
    expires = None if key.expires_at is None else key.expires_at.timestamp()
    return Identity(key.name, frozenset(key.scopes), expires)


def _is_bearer(header: Header) -> bool:
    return header[0] == AUTHORIZATION and header[1].split(b" ", 1)[0].lower() == BEARER
