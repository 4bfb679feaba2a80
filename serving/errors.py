"""Reasons for which a request gets no answer. None of them knows HTTP: `api.problems` does."""

from __future__ import annotations


class ServingError(Exception):
    """Any of these reasons.

    `detail` says what was wrong, with which value, and what to do; `context` names the values that
    a program may want to read.
    """

    def __init__(self, detail: str, **context: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.context = context


class InvalidRequest(ServingError):
    """The request does not have the form that is expected."""


class TooLarge(ServingError):
    """The request is over a limit."""


class HeadTooLarge(ServingError):
    """What comes before the content of the request is over a limit."""


class MalformedRequest(ServingError):
    """The bytes are no request."""


class UnsupportedCoding(ServingError):
    """The content of the request is compressed in a way that is not read."""


class UnknownFeature(ServingError):
    """No feature has that name or version."""


class RetiredFeature(ServingError):
    """The version, or the set, is not read any more; the context names its `replacement`."""


class StateConflict(ServingError):
    """What is recorded is in a state in which this cannot be done."""


class OpenTrainingSet(ServingError):
    """What a training set asks for is not all stored yet, so its answer may change."""


class ChangesNotAllowed(ServingError):
    """The server takes no changes of what is recorded."""


class WrongEntity(ServingError):
    """The feature belongs to another kind of entity."""


class NotReady(ServingError):
    """The server cannot answer yet."""


class DeadlineMissed(ServingError):
    """The answer is not there when the client does not want it any more."""


class StoresUnavailable(ServingError):
    """No value of the answer could be read."""


class Overloaded(ServingError):
    """The server is answering as many requests as it may."""


class KeyMissing(ServingError):
    """The request has no API key, and needs one."""


class KeyRefused(ServingError):
    """The API key is not valid."""


class ScopeMissing(ServingError):
    """The API key is valid and does not allow this; the context names the `scope` that would."""
