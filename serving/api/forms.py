"""The forms of answers about many entities, and which one a client asks for."""

from __future__ import annotations

import re
from enum import Enum

from starlette.types import Scope

from serving.api.arrow import MEDIA_TYPE
from serving.errors import InvalidRequest

COMPACT = (b"compact", b"compact=")
NOT_WANTED = re.compile(rb"(^|;)\s*q=0(\.0*)?\s*(;|$)")
"""Of the parameters of a media type in `Accept`: those that refuse it."""

JSON, ARROW = b"application/json", MEDIA_TYPE.encode()


class Form(Enum):
    """How an answer about many entities is written."""

    OBJECTS = "objects"
    COMPACT = "compact"
    ARROW = "arrow"


def form_of(scope: Scope) -> Form:
    """The form that a client asks for: Arrow by `Accept`, compact JSON by `?compact`.

    Raises `InvalidRequest`.
    """
    query = scope["query_string"]
    if query not in (b"", *COMPACT):
        raise InvalidRequest("this route takes ?compact, and nothing else behind a question mark")
    if accepts_arrow(scope):
        return Form.ARROW
    return Form.COMPACT if query else Form.OBJECTS


def accepts_arrow(scope: Scope) -> bool:
    """Whether a client asks for Arrow, by `Accept`."""
    for name, value in scope["headers"]:
        if name == b"accept" and any(map(_is_arrow, value.split(b","))):
            return True
    return False


def media_type(form: Form) -> bytes:
    """The media type of answers in a form."""
    return ARROW if form is Form.ARROW else JSON


def _is_arrow(accepted: bytes) -> bool:
    media_type, _, parameters = accepted.partition(b";")
    return media_type.strip().lower() == ARROW and not NOT_WANTED.search(parameters)
