"""The client for programs with an event loop, on aiohttp."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from tickwell import __version__
from tickwell.client import past, questions
from tickwell.client.batch import BatchFeatures
from tickwell.client.calls import DEADLINE_SECONDS, Call, Calls, Chances, Retries
from tickwell.client.columns import Columns
from tickwell.client.endpoint import Endpoint, endpoint
from tickwell.client.entity_frames import check_free, entity_frame
from tickwell.client.errors import CertificateRefused, ClientError, ConnectionFailed, ProxyRefused
from tickwell.client.questions import Answer, Question
from tickwell.client.values import EntityFeatures, FeatureInfo
from tickwell.errors import one_line

CONNECTIONS = 128
"""Connections that are kept, and so requests at the same time; what comes more waits for one."""

PARTS_AT_ONCE = 4
"""Requests of one call that are under way at the same time."""

KEEP_ALIVE_SECONDS = 60.0
"""Seconds after which an idle connection is not used again: the server closes it after 75."""

T = TypeVar("T")
Frame = TypeVar("Frame")


class AsyncClient:
    """Reads features from a Tickwell server, in one event loop.

        async with AsyncClient() as store:
            answer = await store.get_online_features(["price_sma_5"], "symbol", "AAPL")
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
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def get_online_features(
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
        return await self._ask(question, self._begin(deadline_seconds))

    async def get_batch_features(
        self,
        feature_names: Sequence[str],
        entities: Iterable[Mapping[str, str]],
        *,
        deadline_seconds: float | None = None,
    ) -> BatchFeatures:
        """The features of entities such as `{"symbol": "AAPL"}`, in their order.

        Many are asked for in several requests, a few at the same time.
        """
        call = self._begin(deadline_seconds)
        numbered = enumerate(questions.batch(feature_names, entities))
        found: dict[int, Columns] = {}
        first = next(numbered, None)
        if first is not None:
            found[0] = await self._ask(first[1], call)  # what is wrong with one is with all
            await self._all(numbered, call, found)
        return questions.answer_of([found[number] for number in sorted(found)], feature_names)

    async def get_offline_features(
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

        It is `tickwell.Client.get_offline_features`, which says what goes in and comes out; what is
        joined in this process is joined in a thread.
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
            added = await asyncio.to_thread(past.joined_here, frame, feature_names, options)
        else:
            call = self._begin(deadline_seconds)
            known = await self._ask(questions.features((), ()), call)
            for name in past.pinned(feature_names, known):
                known.append(await self._ask(questions.feature(name), call))
            table = frame.columns(past.key_columns(frame, known, event_timestamp_col))
            added = await self._ask(past.question(table, feature_names, options), call)
        check_free(frame.names, added.schema.names)  # what is in a set is known by now
        found: Frame = frame.beside(added)
        return found

    async def features(
        self, entity: Sequence[str] = (), tags: Sequence[str] = ()
    ) -> list[FeatureInfo]:
        """The active features: all, or those of a kind of entity, `("symbol",)`, with all tags."""
        return await self._ask(questions.features(entity, tags), self._begin(None))

    async def feature(self, name: str) -> FeatureInfo:
        """One feature, by its name, an alias, or with its version as `price_sma_5@1.0.0`."""
        return await self._ask(questions.feature(name), self._begin(None))

    async def explain(
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
        return await self._ask(question, self._begin(None))

    async def health(self) -> dict[str, Any]:
        """How the server, its stores and the workers are; also of a server that is not well."""
        return await self._ask(questions.health(), self._begin(None))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._endpoint.shown})"

    def _begin(self, deadline_seconds: float | None) -> Call:
        if deadline_seconds is None:
            deadline_seconds = self._deadline_seconds
        return self._calls.begin(deadline_seconds)

    async def _all(
        self,
        numbered: Iterator[tuple[int, Question[Columns]]],
        call: Call,
        found: dict[int, Columns],
    ) -> None:
        """Ask the parts of a batch, in turn by a few tasks; the first error ends all."""

        async def some() -> None:
            for number, part in numbered:
                found[number] = await self._ask(part, call)

        tasks = [asyncio.create_task(some()) for _ in range(PARTS_AT_ONCE)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, question: Question[T], call: Call) -> T:
        for attempt in count(1):
            try:
                return question.settled(await self._send(question, call), self._endpoint.shown)
            except ClientError as error:
                seconds = call.pause(error, attempt)
            await asyncio.sleep(seconds)
        raise AssertionError("counting does not end")

    async def _send(self, question: Question[Any], call: Call) -> Answer:
        server, left = self._endpoint, call.remaining()
        session = self._opened()
        try:
            async with (
                asyncio.timeout(left),
                session.request(
                    question.method,
                    URL(server.url + question.path, encoded=True),
                    data=question.body or None,
                    headers=question.headers(left),
                    allow_redirects=False,
                    proxy=server.proxy,
                ) as response,
            ):
                return Answer(response.status, response.headers, await response.read())
        except TimeoutError:
            raise call.exceeded() from None
        except (aiohttp.ClientError, OSError) as error:
            raise _failure(error, server) from None

    def _opened(self) -> aiohttp.ClientSession:
        """The connections, which belong to the loop in which the first call is made."""
        loop = asyncio.get_running_loop()
        if self._session is not None:
            if self._loop is not loop:
                raise ClientError(
                    "this AsyncClient was used in another event loop, which has its connections: "
                    "make one in each, as with `async with AsyncClient() as store`"
                )
            return self._session
        self._loop = loop
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=CONNECTIONS,
                ssl=self._endpoint.tls or True,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._endpoint.headers,
            timeout=aiohttp.ClientTimeout(total=None),  # a call has its own
        )
        return self._session


def _failure(error: Exception, server: Endpoint) -> ClientError:
    """The error of ours that one of aiohttp is."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        why = getattr(cause, "verify_message", "") or one_line(cause)
        return CertificateRefused(server.shown, why)
    # The text of an error of aiohttp has the URL, and a proxy's URL may have a password.
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ProxyRefused(server.shown, error.status)
    if isinstance(error, aiohttp.ClientResponseError):
        return ConnectionFailed(server.shown, f"what came is no answer in HTTP: {error.message}")
    cause = getattr(error, "os_error", None) or error
    return ConnectionFailed(server.shown, one_line(cause) or type(cause).__name__)
