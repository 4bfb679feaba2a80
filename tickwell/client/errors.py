"""Why a call has no answer. Each error says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tickwell.errors import TickwellError


class ClientError(TickwellError):
    """A call has no answer, for any of these reasons."""


class ConnectionFailed(ClientError):
    """Nothing answers at the URL, or the connection broke before all of an answer had come."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"no answer from {url} ({why}): is the server running? `tickwell up` starts one, and "
            "another one is named by TICKWELL_URL, by --url or by the client's `url`"
        )


class CertificateRefused(ClientError):
    """The server's certificate does not prove that it is the one that is meant."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"{url} is not trusted ({why}): if no public authority signed its certificate, name "
            "the authority's certificate (PEM) by TICKWELL_URL_CA or by the client's `tls`"
        )


class DeadlineExceeded(ClientError):
    """The deadline of a call passed."""

    def __init__(self, url: str, seconds: float, why: str = "") -> None:
        seen = f"; before that: {why}" if why else ""
        super().__init__(
            f"no answer from {url} within {seconds:g} s{seen}. Where this is too short, as for "
            "many entities, give the call more: `deadline_seconds`"
        )


class ProxyRefused(ClientError):
    """The proxy that stands before the server does not lead there."""

    def __init__(self, url: str, status: int) -> None:
        self.status = status
        super().__init__(
            f"no answer from {url}: the proxy answered with {status}. HTTPS_PROXY, HTTP_PROXY or "
            "ALL_PROXY names it, with user and password if it asks for them; NO_PROXY names hosts "
            "that need none"
        )


class NoTickwellServer(ClientError):
    """What answers at the URL is another program, or a proxy that cannot reach the server."""

    def __init__(self, url: str, status: int) -> None:
        self.status = status
        super().__init__(
            f"no answer from {url} (it does not answer as a Tickwell server does: its status is "
            f"{status}): is the server running? `tickwell up` starts one, and another one is named "
            "by TICKWELL_URL, by --url or by the client's `url`"
        )


class ProblemAnswer(ClientError):
    """The server answered with a problem document (RFC 9457).

    `detail` is what it says, `status` the status of HTTP, `context` what else is in the document.
    `request_id` finds the request in the server's log, and `retry_after_seconds` is what the server
    asks a client to wait for; either is None where the answer does not say.
    """

    titles: ClassVar[frozenset[str]] = frozenset()
    """The titles of the kinds of problems that are of this class."""

    statuses: ClassVar[frozenset[int]] = frozenset()
    """The statuses that are, whatever the title."""

    hint: ClassVar[str] = ""
    """What to do, where only a client knows it."""

    def __init__(
        self,
        detail: str,
        status: int,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds
        self.context = dict(context or {})
        more = f" (status {status}, request {request_id})" if request_id else f" (status {status})"
        super().__init__(detail + self.hint + more)


class InvalidRequest(ProblemAnswer):
    """The server cannot understand the request."""

    titles = frozenset({"The request cannot be understood", "Not a request of HTTP/1.1"})
    statuses = frozenset({400, 405, 406, 415, 422})


class WrongEntity(InvalidRequest):
    """A feature is of another kind of entity; `context["entity"]` has the key fields of its own."""

    titles = frozenset({"Wrong kind of entity"})
    statuses = frozenset()


class TooLarge(InvalidRequest):
    """The request is over a limit of the server."""

    titles = frozenset({"Too large", "The head of the request is too large"})
    statuses = frozenset({413, 431})


class UnknownFeature(ProblemAnswer):
    """No feature has that name or version; `context["feature"]` is the name."""

    titles = frozenset({"Unknown feature"})


class RetiredFeature(ProblemAnswer):
    """The version, or the set, is not read any more; `context["replacement"]` may name another."""

    statuses = frozenset({410})


class StateConflict(ProblemAnswer):
    """What is recorded of a feature is in a state in which this cannot be done."""

    statuses = frozenset({409})


class NotFound(ProblemAnswer):
    """The server has no such route: it may be older than this client."""

    statuses = frozenset({404})


class KeyRefused(ProblemAnswer):
    """The server asks for an API key, or does not know this one."""

    statuses = frozenset({401})
    hint = ". A client's key is named by TICKWELL_API_KEY or by its `api_key`"


class ScopeMissing(ProblemAnswer):
    """The API key does not allow this."""

    statuses = frozenset({403})


class NotReady(ProblemAnswer):
    """The server cannot answer now: it starts, its stores are away, or too much is asked of it."""

    statuses = frozenset({429, 503})


class ServerMistake(ProblemAnswer):
    """A mistake of the server: its log has more."""

    statuses = frozenset({500})


KINDS: tuple[type[ProblemAnswer], ...] = (
    *(WrongEntity, TooLarge, UnknownFeature, RetiredFeature, StateConflict),
    *(KeyRefused, ScopeMissing, NotReady, InvalidRequest, NotFound, ServerMistake),
)


def kind_of(status: int, title: str) -> type[ProblemAnswer]:
    """The class of a problem: by its title, which is the same for all of a kind, or its status."""
    by_title = (kind for kind in KINDS if title in kind.titles)
    by_status = (kind for kind in KINDS if status in kind.statuses)
    return next(by_title, None) or next(by_status, ProblemAnswer)
