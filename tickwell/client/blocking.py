"""The client for programs without an event loop, on urllib3."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any, TypeVar

import urllib3
from urllib3 import exceptions
from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError, SSLError

from tickwell import __version__
from tickwell.client import past, questions
from tickwell.client.batch import BatchFeatures
from tickwell.client.calls import DEADLINE_SECONDS, Call, Calls, Chances, Retries
from tickwell.client.endpoint import Endpoint, endpoint
from tickwell.client.entity_frames import check_free, entity_frame
from tickwell.client.errors import (
    CertificateRefused,
    ClientError,
    ConnectionFailed,
    ProxyRefused,
)
from tickwell.client.questions import Answer, Question
from tickwell.client.timed_connections import POOLS, Until
from tickwell.client.values import EntityFeatures, FeatureInfo
from tickwell.errors import one_line

CONNECTIONS = 32
"""Connections that are kept, and so requests at the same time; what comes more waits for one."""

REFUSED = re.compile(r"Tunnel connection failed: (\d{3})\b")
"""What `http.client` says where a proxy does not lead to the server."""

T = TypeVar("T")
Frame = TypeVar("Frame")


class Client:
    """Reads features from a Tickwell server. Threads may share one.

        with Client() as store:
            answer = store.get_online_features(["price_sma_5"], "symbol", "AAPL")
            answer["price_sma_5"].value

    Without arguments it takes what the commands take: `TICKWELL_URL`, `TICKWELL_API_KEY` and
    `TICKWELL_URL_CA`, or else the stack that `tickwell up` runs on the data directory. `tls` is an
    SSL context, or the path of the certificate (PEM) of the authority that signed the server's.
    What is read is counted as read by `consumer`, a name such as "pricing-model"; where the server
    needs API keys, by the name of the key.

    A call takes at most `deadline_seconds`, all its requests and retries together; the server is
    told how much is left. Methods raise `tickwell.client.errors.ClientError`, and what is wrong
    with an argument is a ValueError or TypeError.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        tls: ssl.SSLContext | str | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        retries: Retries | None = None,
        chances: Chances | None = None,
        consumer: str | None = None,
    ) -> None:
        self._endpoint = endpoint(url, api_key, tls, f"tickwell-python/{__version__}", consumer)
        self._calls = Calls(self._endpoint.shown, retries or Retries(), chances)
        self._deadline_seconds = deadline_seconds
        self._send = _sender(self._endpoint)

    def get_online_features(
        self,
        feature_names: Sequence[str],
        entity_type: str | None = None,
        entity_value: str | None = None,
        *,
        entity: Mapping[str, str] | None = None,
        deadline_seconds: float | None = None,
    ) -> EntityFeatures:
        """The features of one entity: `"symbol", "AAPL"`, or by all its key fields, `entity`."""
        question = questions.online(feature_names, entity_type, entity_value, entity)
        return self._ask(question, self._begin(deadline_seconds))

    def get_batch_features(
        self,
        feature_names: Sequence[str],
        entities: Iterable[Mapping[str, str]],
        *,
        deadline_seconds: float | None = None,
    ) -> BatchFeatures:
        """The features of entities such as `{"symbol": "AAPL"}`, in their order.

        Many are asked for in several requests, one after the other.
        """
        call = self._begin(deadline_seconds)
        parts = [self._ask(part, call) for part in questions.batch(feature_names, entities)]
        return questions.answer_of(parts, feature_names)

    def get_offline_features(
        self,
        feature_names: Sequence[str],
        entity_df: Frame,
        event_timestamp_col: str = "timestamp",
        *,
        timezone: str | None = None,
        as_known_at: datetime | None = None,
        delay: timedelta | str | None = None,
        versions: past.Versions = "active",
        stale: past.Stale = "keep",
        event_times: bool = False,
        allow_open: bool = False,
        name: str | None = None,
        deadline_seconds: float = past.DEADLINE_SECONDS,
    ) -> Frame:
        """A frame's rows with the features that were served at their moments.

        `entity_df` is a DataFrame of pandas or polars, a relation of DuckDB or a table of Arrow. It
        has the key fields as columns of text, and moments in `event_timestamp_col`; naive ones are
        local times of `timezone`. What comes back is of the same kind, with a column for each
        feature, null (NaN in pandas) where there was no value, and `<feature>__status`; with
        `event_times` also `<feature>__event_time`. With `stale="null"` values that were too old are
        null. Nothing that happened, or became known, after a row's moment is in it; with
        `as_known_at`, a datetime, what became known by then is; with `delay`, as "250ms" or a
        timedelta, nothing that became known later than so long before the moment.

        A name without a version means the version that is active now; with `versions="as_served"`
        in each row the one that was served then, which `<feature>__version` says. What is not all
        stored yet is an error that says up to when it is; `allow_open` takes it as it is.

        Up to 100,000 rows are joined by the server. More are joined in this process, which reads
        Postgres (`TICKWELL_POSTGRES`), and so is what is kept by a `name`, with its rows, so that
        `tickwell training-set verify NAME` proves it again. A call takes a minute at most unless
        told otherwise.
        """
        frame = entity_frame(entity_df)
        options = past.PastOptions(
            event_timestamp_col,
            timezone,
            as_known_at,
            delay,
            versions,
            stale,
            event_times,
            allow_open,
            name,
        )
        check_free(frame.names, past.added_columns(feature_names, options))
        if not past.is_for_server(frame.rows, feature_names, name):
            added = past.joined_here(frame, feature_names, options)
        else:
            call = self._begin(deadline_seconds)
            known = self._ask(questions.features((), ()), call)
            for name in past.pinned(feature_names, known):
                known.append(self._ask(questions.feature(name), call))
            table = frame.columns(past.key_columns(frame, known, event_timestamp_col))
            added = self._ask(past.question(table, feature_names, options), call)
        check_free(frame.names, added.schema.names)  # what is in a set is known by now
        found: Frame = frame.beside(added)
        return found

    def features(self, entity: Sequence[str] = (), tags: Sequence[str] = ()) -> list[FeatureInfo]:
        """The active features: all, or those of a kind of entity, `("symbol",)`, with all tags."""
        return self._ask(questions.features(entity, tags), self._begin(None))

    def feature(self, name: str) -> FeatureInfo:
        """One feature, by its name, an alias, or with its version as `price_sma_5@1.0.0`."""
        return self._ask(questions.feature(name), self._begin(None))

    def explain(
        self,
        feature_name: str,
        entity_type: str | None = None,
        entity_value: str | None = None,
        *,
        entity: Mapping[str, str] | None = None,
        at: datetime | None = None,
    ) -> dict[str, Any]:
        """How a value came about, now or as it was served at a moment: its ticks and its steps.

        The keys are those of the JSON of `GET /features/{name}/explain`; `same` says whether the
        steps give the bits that are stored.
        """
        question = questions.explain(feature_name, entity_type, entity_value, entity, at)
        return self._ask(question, self._begin(None))

    def health(self) -> dict[str, Any]:
        """How the server, its stores and the workers are; also of a server that is not well."""
        return self._ask(questions.health(), self._begin(None))

    def close(self) -> None:
        """Close the connections."""
        self._send.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._endpoint.shown})"

    def _begin(self, deadline_seconds: float | None) -> Call:
        if deadline_seconds is None:
            deadline_seconds = self._deadline_seconds
        return self._calls.begin(deadline_seconds)

    def _ask(self, question: Question[T], call: Call) -> T:
        for attempt in count(1):
            try:
                return question.settled(self._send(question, call), self._endpoint.shown)
            except ClientError as error:
                seconds = call.pause(error, attempt)
            time.sleep(seconds)
        raise AssertionError("counting does not end")


class _Sender:
    """Sends one request to one server and brings its answer."""

    def __init__(self, server: Endpoint, urlopen: Callable[..., Any], path: str, pool: Any) -> None:
        self._server = server
        self._urlopen = urlopen
        self._path = path
        self._pool = pool

    def __call__(self, question: Question[Any], call: Call) -> Answer:
        left = call.remaining()
        try:
            response = self._urlopen(
                question.method,
                self._path + question.path,
                body=question.body or None,
                headers={**self._server.headers, **question.headers(left)},
                timeout=Until(call),
                pool_timeout=left,
                redirect=False,
                retries=False,
            )
        except (HTTPError, OSError) as error:
            raise _failure(error, self._server, call) from None
        return Answer(response.status, response.headers, response.data)

    def close(self) -> None:
        self._pool.close() if hasattr(self._pool, "close") else self._pool.clear()


def _sender(server: Endpoint) -> _Sender:
    settings: dict[str, Any] = {"maxsize": CONNECTIONS, "block": True}
    if server.tls is not None:
        settings["ssl_context"] = server.tls
    if server.proxy is not None:
        # urllib3 sends nothing of a user in the URL
        proxy = urllib3.ProxyManager(
            server.proxy, num_pools=1, proxy_headers=server.proxy_headers, **settings
        )
        proxy.pool_classes_by_scheme = POOLS
        return _Sender(server, proxy.urlopen, server.url, proxy)
    pool = POOLS["http" if server.tls is None else "https"](server.host, server.port, **settings)
    return _Sender(server, pool.urlopen, server.path, pool)


def _failure(error: Exception, server: Endpoint, call: Call) -> ClientError:
    """The error of ours that one of urllib3 is."""
    cause = error.original_error if isinstance(error, ProxyError) else error
    if refused := REFUSED.match(str(cause)):
        return ProxyRefused(server.shown, int(refused[1]))
    if isinstance(cause, NewConnectionError):
        return ConnectionFailed(server.shown, one_line(cause).partition(": ")[2])
    if isinstance(cause, exceptions.TimeoutError | exceptions.EmptyPoolError):
        return call.exceeded()
    if isinstance(cause, SSLError) and isinstance(cause.args[0], ssl.SSLCertVerificationError):
        return CertificateRefused(server.shown, cause.args[0].verify_message)
    return ConnectionFailed(server.shown, one_line(cause) or type(cause).__name__)
