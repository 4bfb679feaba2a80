"""Rebuilds that are disturbed, or beside workers and each other."""

from __future__ import annotations

import pytest

from pipelines.errors import StoreWentBack
from pipelines.rebuild.rebuild import Done
from pipelines.stores.redis.fill_marks import FillMarks, RedisEmptied
from registry.formats.redis_keys import filled_key, watermark_key
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import (
    KEPT,
    SYMBOLS,
    TOPIC,
    Stores,
    at_work,
    both,
    nothing,
    quiet,
)
from tests.support.sinks import GO_ON, empty, ticks


def test_a_worker_that_remembers_what_was_lost(stores: Stores) -> None:
    """Its state has the same origin as the rebuilt one, and its ticks in other slots."""
    first, second, third = runs(ticks(["A"], 240), (200, 230))
    remembers, offline = stores.online(), stores.offline()
    for run in (first, second):
        remembers.materialize(run, GO_ON)
        offline.materialize(run, GO_ON)
    stores.flush()
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    remembers.materialize(third, GO_ON)
    found = stores.states(["A"])
    empty(stores.redis_url, stores.postgres)
    both(stores, [first, second, third])
    assert stores.states(["A"]) == found


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("moment", range(1, 7))
def test_redis_is_emptied_while_it_is_rebuilt(stores: Stores, moment: int) -> None:
    both(stores, list(runs(ticks(SYMBOLS, 200), (100,))))
    before = stores.rows()
    stores.flush()
    steps = at_work(*[nothing] * (moment - 1), stores.flush)
    stores.rebuild().fill(KEPT, TOPIC, steps)
    assert stores.rows() == before


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("moment", range(1, 7))
def test_a_rebuild_that_ends_in_the_middle(stores: Stores, moment: int) -> None:
    """The next one resumes; until it is done no partition counts as filled."""
    both(stores, list(runs(ticks(SYMBOLS, 200), (100,))))
    before = stores.rows()
    stores.flush()

    class Killed(Exception):
        pass

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        stores.rebuild().fill(KEPT, TOPIC, at_work(*[nothing] * (moment - 1), kill))
    marks = FillMarks(stores.redis())
    with pytest.raises(RedisEmptied):
        marks.check([TOPIC])
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    marks.check([TOPIC])
    assert stores.rows() == before


@pytest.mark.usefixtures("small_pieces")
def test_two_rebuilds_and_a_worker_at_once(stores: Stores) -> None:
    """The second begins and ends inside the first, Postgres gets later runs, a worker begins."""
    first, second, third, fourth = runs(ticks(SYMBOLS, 400), (100, 200, 300))
    both(stores, [first])
    stores.flush()
    online, offline = stores.online(), stores.offline()

    def meanwhile() -> None:
        offline.materialize(second, GO_ON)
        offline.materialize(third, GO_ON)
        stores.rebuild().fill(KEPT, TOPIC, quiet)
        online.materialize(fourth, GO_ON)

    stores.rebuild().fill(KEPT, TOPIC, at_work(nothing, nothing, meanwhile))
    offline.materialize(fourth, GO_ON)
    found = stores.rows(), stores.states(SYMBOLS)
    empty(stores.redis_url, stores.postgres)
    both(stores, [first, second, third, fourth])
    assert (stores.rows(), stores.states(SYMBOLS)) == found


def test_a_redis_that_has_everything_is_left_alone(stores: Stores) -> None:
    """Also one that Postgres is behind."""
    first, second = runs(ticks(SYMBOLS, 200), (100,))
    both(stores, [first, second])
    before = stores.rows()
    seen: list[Done] = []
    stores.rebuild().refill(KEPT, TOPIC, seen.append)
    assert (seen[-1].compared, seen[-1].written) == (len(SYMBOLS), 0)
    assert stores.rows() == before
    stores.delete(watermark_key(TOPIC_ID, 0), filled_key(TOPIC_ID, 0))
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    assert stores.rows() == before


def test_a_live_worker_finds_redis_emptied(stores: Stores) -> None:
    first, second, third = runs(ticks(SYMBOLS, 300), (100, 200))
    both(stores, [first])
    online, offline = stores.online(), stores.offline()
    online.materialize(second, GO_ON)
    stores.flush()
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    with pytest.raises(StoreWentBack):  # Postgres is behind: it starts again, from there
        online.materialize(third, GO_ON)
    online = stores.online()
    for run in (second, third):
        online.materialize(run, GO_ON)
        offline.materialize(run, GO_ON)
    found = stores.rows(), stores.states(SYMBOLS)
    empty(stores.redis_url, stores.postgres)
    both(stores, [first, second, third])
    assert (stores.rows(), stores.states(SYMBOLS)) == found
