"""Requests that are answered directly: without a task, and without the application.

    bytes ──► known head, known question ──► rows, heard ──► answer
                        │                       │
                        └─────── else ──────────┴──► the parser, a task, the application

An application of ASGI takes a task a request, a dozen coroutines and messages, which cost as much
as the answer. What is asked here was asked before, in the same words: it is known whose the key is,
what is wanted, and how the answer is written. All of that is looked up, and checked again where it
changes with time. Whatever is not as it is as a rule goes the ordinary way, with the moment at
which it came, as if it had not been looked at: only answers with status 200 are given here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from starlette.types import Scope

from serving.api import consumers, deadlines, request_ids
from serving.api.authentication import HEADERS as KEY_HEADERS
from serving.api.authentication import KeyCheck
from serving.api.consumers import ConsumerOf
from serving.api.content_codings import LEAST_BYTES
from serving.api.feature_routes import OK, Bounds
from serving.api.forms import Form, form_of, media_type
from serving.api.known_answers import Known, KnownQuestion
from serving.api.known_heads import KnownHeads, split
from serving.api.request_log import KEY_NAME
from serving.api.scopes import scope_needed
from serving.errors import InvalidRequest, ServingError
from serving.metrics import Metrics
from serving.stores.heard_rows import HeardRows, Judge
from serving.stores.row_batch import Values

logger = logging.getLogger(__name__)

UNCOMMON_HEADERS = frozenset(
    {b"origin", b"expect", b"upgrade", b"transfer-encoding", b"content-encoding"}
)
"""Headers of which the ordinary way makes something that is not known here."""


ONE, BATCH = "/features/online", "/features/batch"

SURE_MS = 2_000
"""Milliseconds in which a store has answered, or is known not to: then there is time left."""


class KnownRequest(NamedTuple):
    """What the head of a request says."""

    key_headers: Sequence[tuple[bytes, bytes]]
    consumer: bytes | None
    ms: int
    """In how many milliseconds it must be answered."""

    form: Form


class Exchange(Protocol):
    """A request that is answered directly, as its connection has it (`direct_exchange`)."""

    body: bytes
    request_id: bytes
    response_complete: bool

    def may_answer(self) -> bool:
        """Whether an answer can be written now."""
        ...

    def answer(self, content: bytes, kind: bytes) -> None:
        """Write the answer, of this media type."""
        ...

    def go_on(self, began: float) -> None:
        """Have the request answered the ordinary way; it came at `began`, by the loop's clock."""
        ...


class DirectRoute:
    """Answers what is posted to one path."""

    def __init__(
        self,
        path: str,
        answers: Known,
        rows: HeardRows,
        metrics: Metrics,
        bounds: Bounds,
        consumer_of: ConsumerOf,
        access: tuple[KeyCheck | None, bool] = (None, False),
    ) -> None:
        """`access` has the check of API keys, None where none is needed, and whether large answers
        are compressed, which is not done here: those about many entities are left then."""
        self._keys, compress = access
        self.path = path
        self.answers = answers
        self.rows = rows
        self.metrics = metrics
        self.admission, self.deadlines = bounds
        self._consumer_of = consumer_of
        self._form_of = form_of if path == BATCH else _no_form
        self._needed = scope_needed("POST", path)
        self.most_bytes = LEAST_BYTES if compress else None
        self._is_left = compress and path == BATCH

    def known(self, scope: Scope) -> KnownRequest | None:
        """What the head of a request says that was understood; None where it is not common."""
        if self._is_left or scope["method"] != "POST" or scope["path"] != self.path:
            return None
        headers = scope["headers"]
        names = [name for name, _ in headers]
        if names.count(b"content-length") != 1 or not UNCOMMON_HEADERS.isdisjoint(names):
            return None
        found = dict(reversed(headers))  # of several the first ones
        try:
            form = self._form_of(scope)
            ms = self.deadlines.ms_of(found.get(deadlines.HEADER))
        except ServingError:
            return None
        key_headers = [header for header in headers if header[0] in KEY_HEADERS]
        return KnownRequest(key_headers, found.get(consumers.HEADER), ms, form)

    def take(self, known: KnownRequest, exchange: Exchange) -> bool:
        """Begin to answer; False where the ordinary way must, and nothing has happened yet."""
        if self.admission.is_full:
            return False
        scope: dict[str, Any] = {}
        try:
            if self._keys is not None and self._needed is not None:
                identity = self._keys.identity(known.key_headers)
                self._keys.check(identity, self._needed)
                scope[KEY_NAME] = identity.key
            question = self.answers.question(exchange.body)
            if question is None:
                return False
            consumer = self._consumer_of(scope, known.consumer)
        except ServingError:
            return False
        return _Asked(self, question, exchange, consumer, known.form).ask(known.ms)


def _no_form(scope: Scope) -> Form:
    """Of a route about one entity, which has one form. Raises `InvalidRequest`."""
    if scope["query_string"]:
        raise InvalidRequest("this route takes nothing behind a question mark")
    return Form.OBJECTS


class Direct:
    """What connections know of direct answers: the routes, and the heads of requests to them."""

    def __init__(self, routes: Sequence[DirectRoute]) -> None:
        self._routes = {route.path: route for route in routes}
        self.heads: KnownHeads[tuple[DirectRoute, KnownRequest]] = KnownHeads()

    def learn(self, scope: Scope, data: bytes, body_bytes: int) -> None:
        """Keep the head of a request, if others like it may be answered directly.

        It is one of HTTP/1.1 after which the connection stays. `data` is all that the parser was
        given for it, and its body has so many bytes.
        """
        route = self._routes.get(scope["path"])
        head = None if route is None else split(data)
        if route is None or head is None or len(data) != head.size + body_bytes:
            return
        ids = [value for name, value in scope["headers"] if name == request_ids.HEADER]
        known = route.known(scope)
        if known is not None and ids == ([] if head.id is None else [head.id]):
            self.heads.keep(head, body_bytes, (route, known))


class _Asked:
    """A question whose rows are asked for; it hears them."""

    __slots__ = (
        *("_began", "_consumer", "_exchange", "_form", "_is_done", "_judge", "_question", "_route"),
        *("_size", "_slot", "_timed"),
    )
    _judge: Judge
    _began: float
    _timed: float

    def __init__(
        self,
        route: DirectRoute,
        question: KnownQuestion,
        exchange: Exchange,
        consumer: str,
        form: Form,
    ) -> None:
        self._route, self._question, self._exchange = route, question, exchange
        self._consumer, self._form = consumer, form
        self._is_done = False
        self._slot: set[Any] | None = None
        self._size = len(exchange.body)

    def ask(self, ms: int) -> bool:
        """Ask for the rows; False where they must be waited for."""
        route = self._route
        self._timed = time.perf_counter()
        self._began = asyncio.get_running_loop().time()
        judge = route.rows.ask(self._question.wanted, self)
        if judge is None:
            return False
        self._judge = judge
        if ms < SURE_MS:
            self._slot = route.deadlines.timers.add(self._began + ms / 1_000, self)
        route.admission.answering += 1
        route.admission.answering_bytes += self._size
        return True

    def done(self) -> bool:
        return self._is_done

    def set_result(self, values: Values) -> None:
        """The rows have come, or will not."""
        self._end()
        try:
            content = self._answer(values)
        except Exception:  # whoever reads the answers of a store has others to tell
            logger.exception("a request could not be answered directly, and is answered otherwise")
            content = None
        if content is None:
            self._exchange.go_on(self._began)
        else:
            self._exchange.answer(content, media_type(self._form))

    def expire(self) -> None:
        """The deadline has come."""
        self._end()
        self._exchange.go_on(self._began)

    def _answer(self, values: Values) -> bytes | None:
        """The answer, once it is counted; None where the ordinary way has to find it."""
        route = self._route
        heard = self._judge(values)
        if heard is None or not self._exchange.may_answer():
            return None
        request_id = self._exchange.request_id
        content = route.answers.answer(
            self._question, heard, request_id, self._form, route.most_bytes
        )
        if content is not None:
            heard.on_answer()
            route.metrics.request(route.path, OK, time.perf_counter() - self._timed)
            for counted, entities in self._question.reads:
                counted[self._consumer] += entities
        return content

    def _end(self) -> None:
        """Nothing is waited for any more."""
        self._is_done = True
        admission = self._route.admission
        admission.answering -= 1
        admission.answering_bytes -= self._size
        if self._slot is not None:
            self._slot.discard(self)
            self._slot = None
