"""What the Faust app is set to."""

from __future__ import annotations

import pytest

from pipelines.kafka.connection import ANSWER_SECONDS
from tests.support.apps import an_app, in_a_loop


@pytest.mark.parametrize(("session", "seconds"), [(6.0, ANSWER_SECONDS), (60.0, 64.0)])
def test_a_frozen_broker_is_given_up_soon(session: float, seconds: float) -> None:
    """As soon as the session allows, which Faust does not let be longer than a request."""

    @in_a_loop
    async def check() -> None:
        conf = an_app(session=session).conf
        assert (conf.broker_request_timeout, conf.broker_session_timeout) == (seconds, session)

    check()
