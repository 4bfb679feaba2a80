"""The command line's client, and the proxies of the environment."""

from __future__ import annotations

from contextlib import closing

import pytest

from tickwell.client.http import Client
from tickwell.errors import TickwellError

UNUSABLE = ["socks5://127.0.0.1:1", "nonsense://127.0.0.1:1"]


@pytest.mark.parametrize("proxy", UNUSABLE)
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "[::1]", "localhost"])
def test_no_proxy_stands_before_this_machine(
    host: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with closing(Client(f"http://{host}:1")) as client, pytest.raises(TickwellError, match="no an"):
        client.health()


@pytest.mark.parametrize("proxy", UNUSABLE)
def test_a_proxy_that_cannot_be_used_is_said(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(TickwellError, match=r"^http://h:1 cannot .* ALL_PROXY.* NO_PROXY"):
        Client("http://h:1")
