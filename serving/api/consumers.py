"""Whose a request is, for the counts of reads: its API key's name, or what a header says.

Where a server needs keys, the name of the key counts and the header is not looked at: nobody reads
in the name of another one. Elsewhere a header that cannot name a consumer is refused. It is the
same in each request of a client, so that this is noticed at the first one; counted under another
name, its reads would be missed when somebody asks who needs a version.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

from registry.formats import consumer
from registry.formats.consumer import UNNAMED
from serving.api.request_log import KEY_NAME
from serving.errors import InvalidRequest
from serving.usage import Consumers

HEADER = consumer.HEADER.lower().encode()

SHOWN_CHARACTERS = 40

ConsumerOf = Callable[[Scope, bytes | None], str]
"""The name under which a request is counted, given the header or None. Raises `InvalidRequest`."""


def nobody(scope: Scope, value: bytes | None) -> str:
    """Of a request that is not asked whose it is."""
    return UNNAMED


def by_key(consumers: Consumers) -> ConsumerOf:
    """By the name of the API key, which was checked before."""
    known = consumers.known

    def consumer_of(scope: Scope, value: bytes | None) -> str:
        name: str = scope[KEY_NAME]
        return known.get(name) or consumers.admit(name, name)

    return consumer_of


def by_header(consumers: Consumers) -> ConsumerOf:
    """By the header `X-Consumer`."""
    known = consumers.known

    def consumer_of(scope: Scope, value: bytes | None) -> str:
        if value is None:
            return UNNAMED
        return known.get(value) or consumers.admit(value, _named(value))

    return consumer_of


def name_of(scope: Scope) -> str:
    """The name of who asks, however many do: what an experiment among consumers goes by."""
    key: str | None = scope.get(KEY_NAME)
    if key is not None:
        return key
    for name, value in scope["headers"]:
        if name == HEADER:
            return _named(value)
    return UNNAMED


def _named(value: bytes) -> str:
    text = value.decode("latin-1")
    if consumer.NAME.fullmatch(text):
        return text
    shown = value[:SHOWN_CHARACTERS].decode("ascii", "backslashreplace")
    raise InvalidRequest(
        f"{consumer.HEADER} is {shown!r}, which is no name: a name has {consumer.FORM}"
    )
