"""The id of a request, by which a client and a log speak of the same one.

It is the client's own where that is sane, so that one id follows a request through several
services. Each answer has it as `X-Request-Id`, a problem document as `request_id`, and the scope of
ASGI under `REQUEST_ID`, for logs.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from itertools import count

HEADER = b"x-request-id"
"""The name of the header, of requests and of answers."""

REQUEST_ID = "tickwell.request_id"
"""The key of a scope under which the id is, as text."""

is_sane = re.compile(rb"[!-~]{1,128}").fullmatch
"""Visible ASCII that a header, a log line and a JSON text hold as it is, and that is not long."""


class RequestIds:
    """Makes ids that no other process makes: a random text of 64 bits, and a number.

    A random id for each request costs several times as much.
    """

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._process = secrets.token_hex(8).encode()
        self._numbers = count(1)

    def make(self) -> bytes:
        """An id that was not made before."""
        return b"%b-%x" % (self._process, next(self._numbers))


_ids = RequestIds()
make = _ids.make
"""Makes the id of a request that has none."""


def id_of(names: Sequence[bytes], headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The id of a request with these headers, of which `names` are the names, in lower case."""
    if HEADER in names:
        given = [value for name, value in headers if name == HEADER]
        if len(given) == 1 and is_sane(given[0]):
            return given[0]
    return _ids.make()
