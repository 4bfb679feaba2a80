"""A Postgres whose errors are no UTF-8 is one that does not answer yet, and is read again."""

from __future__ import annotations

import pytest

from serving.errors import NotReady
from serving.watch.api_keys import ApiKeysWatch
from serving.watch.catalog import CatalogWatch
from tests.support.apps import in_a_loop
from tests.support.foreign_postgres import SAID_OF_IT, foreign_postgres

NOBODY = "redis://127.0.0.1:1/0"


@in_a_loop
async def test_the_catalog_is_read_again() -> None:
    with foreign_postgres() as server:
        watch = CatalogWatch(server.url, NOBODY)
        for number in range(3):
            await watch.refresh()
            assert server.refused == number + 1
            assert SAID_OF_IT in watch.stores["postgres"]
        await watch.close()


@in_a_loop
async def test_keys_are_read_again() -> None:
    with foreign_postgres() as server:
        watch = ApiKeysWatch(server.url, NOBODY)
        for number in range(3):
            await watch.refresh_recorded()
            assert server.refused == number + 1
            with pytest.raises(NotReady, match=SAID_OF_IT):
                _ = watch.keyring
