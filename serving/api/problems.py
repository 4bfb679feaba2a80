"""What a client did wrong, told as a problem document (RFC 9457)."""

from __future__ import annotations


class Problem(Exception):
    """An error with an HTTP status; `detail` says what was wrong and what to do."""

    status = 400
    title = "Bad request"

    def __init__(self, detail: str, **extensions: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extensions = extensions


class BadRequest(Problem):
    """The body is not what the route takes."""

    status = 422
    title = "The request cannot be understood"


class TooLarge(Problem):
    """Something is over its limit."""

    status = 413
    title = "Too large"


class UnknownFeature(Problem):
    """There is no feature of that name or version."""

    status = 404
    title = "Unknown feature"


class WrongEntity(Problem):
    """The feature is of another kind of entity."""

    status = 422
    title = "Wrong kind of entity"


class NotReady(Problem):
    """The server cannot answer yet."""

    status = 503
    title = "Not ready"
