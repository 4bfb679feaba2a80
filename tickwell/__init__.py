"""The front door: settings, the command line, embedded services, the Python client.

    from tickwell import Client

`Client`, `AsyncClient` and `split_by_time` are imported when they are asked for: they bring
libraries, and a command that asks no server needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickwell.client.asynchronous import AsyncClient
    from tickwell.client.blocking import Client
    from tickwell.client.splitting import split_by_time

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__", "split_by_time"]


def __getattr__(name: str) -> object:
    if name == "Client":
        from tickwell.client.blocking import Client

        return Client
    if name == "AsyncClient":
        from tickwell.client.asynchronous import AsyncClient

        return AsyncClient
    if name == "split_by_time":
        from tickwell.client.splitting import split_by_time

        return split_by_time
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
