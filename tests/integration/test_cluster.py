"""The online sink on a Redis Cluster: whole, with a node that hangs, and gone."""

from __future__ import annotations

from contextlib import ExitStack
from threading import Thread
from typing import Any
from unittest.mock import patch

import pytest
import redis

from pipelines.errors import RedisEvicts, StatesLost, StoreUnavailable
from pipelines.kafka.topics import Topic
from pipelines.live.heartbeats import Heartbeats
from pipelines.stores.redis import scripts
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.fill_marks import FillMarks
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.redis.server_checks import check_server
from registry import redis_clients
from registry.formats.redis_keys import WORKERS_KEY
from registry.formats.row import unpack
from tests.support.cluster import Cluster
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import KEPT, TOPIC, Stores, quiet
from tests.support.shipped import SOURCE
from tests.support.sinks import BEGIN, GO_ON, Opened, ticks, worker
from tests.support.states import loaded
from tests.support.stored import store_row, store_state, stored_row, stored_state

NOBODY = "redis://127.0.0.1:1/0"
SYMBOLS = [f"S{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("make", "limits"),
    [
        (redis_clients.warm, redis_clients.WARM_CLUSTER),
        (redis_clients.heartbeat, redis_clients.HEARTBEAT_CLUSTER),
        (redis_clients.throttle, redis_clients.THROTTLE_CLUSTER),
    ],
)
def test_a_client_of_a_cluster_states_its_limits_and_does_not_retry(
    three: Cluster, make: Any, limits: redis_clients.Limits
) -> None:
    with make(three.url, cluster=True) as client:
        assert client.retry.get_retries() == 0
        assert len(client.get_nodes()) == 3
        for node in client.get_nodes():
            pool = client.get_redis_connection(node).connection_pool
            stated = dict(pool.connection_kwargs, max_connections=pool.max_connections)
            # redis-py does not pass the interval on to the nodes: no connection is tested
            assert stated.get("health_check_interval", 0) == limits.health_check_interval
            assert stated["max_connections"] == limits.max_connections
            assert stated["socket_timeout"] == limits.socket_timeout
            assert stated["socket_connect_timeout"] == limits.socket_connect_timeout
            assert stated["retry"].get_retries() == 0


@pytest.mark.timeout(180)
def test_a_cluster_with_a_node_that_hangs_is_waited_for(
    opened: Opened, three: Cluster, redis_database: str
) -> None:
    """Its rows are those of a single server, and what a worker says of itself is heard."""
    everything = list(runs(ticks(SYMBOLS, 300), (100, 200)))
    sink = opened(OnlineSink(three.url, cluster=True))
    assert sink.settle(Topic("ticks.price", TOPIC_ID, 1)) == 1
    work, alone = worker(sink), worker(opened(OnlineSink(redis_database)))
    for run in everything:
        alone.materialize(run, GO_ON)
    work.materialize(everything[0], GO_ON)
    heartbeats = opened(Heartbeats("online", "one", [three.url], cluster=three.url))
    heartbeats.beat(None, [])
    for number, run in enumerate(everything[1:], 1):
        three.pause(number)
        waiting = Thread(target=work.materialize, args=(run, GO_ON))
        waiting.start()
        try:
            while work.retrying is None:
                waiting.join(0.01)
                assert waiting.is_alive()
            fresh = opened(OnlineSink(three.url, cluster=True))
            with pytest.raises(StoreUnavailable):  # one that begins now, and asks all of them
                loaded(fresh, SOURCE, SYMBOLS, 64, BEGIN)
        finally:
            three.resume(number)
        waiting.join(60)
        assert not waiting.is_alive()
    with (
        redis.RedisCluster.from_url(three.url) as client,
        redis.Redis.from_url(redis_database) as single,
    ):
        for symbol in SYMBOLS:
            row = stored_row(client, "price", symbol)
            assert row == stored_row(single, "price", symbol)
        assert unpack(row).origin.topic_id == TOPIC_ID
        assert client.smembers(WORKERS_KEY) == {b"online:one"}


def test_a_cluster_that_is_gone_is_no_end(opened: Opened, three: Cluster) -> None:
    """None of its nodes answers; what redis-py raises then is no RedisError."""
    gone: Any = OnlineSink(NOBODY, cluster=True)
    with pytest.raises(StoreUnavailable):
        gone.settle(Topic("ticks.price", TOPIC_ID, 1))
    with pytest.raises(StoreUnavailable):
        gone.watermarks(TOPIC_ID, [0])
    gone.close()
    heartbeats = Heartbeats("online", "one", [NOBODY], cluster=NOBODY)
    heartbeats.beat(None, None)
    heartbeats.close()


def test_one_node_that_evicts_is_enough(three: Cluster, opened: Opened) -> None:
    warm = opened(WarmRedis(three.url, cluster=True))
    check_server(warm)
    with redis_clients.warm(three.url, cluster=True) as client:
        node = client.get_primaries()[-1]
        client.config_set("maxmemory-policy", "volatile-lru", target_nodes=node)
        try:
            with pytest.raises(RedisEvicts, match="maxmemory-policy volatile-lru"):
                check_server(warm)
        finally:
            client.config_set("maxmemory-policy", "noeviction", target_nodes=node)


def test_heartbeats_are_read_whatever_slots_they_are_in(three: Cluster, opened: Opened) -> None:
    writers = [
        opened(Heartbeats("offline", f"{number}-offline", [three.url], cluster=three.url))
        for number in range(5)
    ]
    for writer in writers:
        writer.beat(None, [])
    assert len(writers[0].others() or ()) == 5


def test_a_loss_is_told_until_the_cluster_knows_it(three: Cluster, postgres_database: str) -> None:
    """The node of the partition does not answer when it is to be told that an entity is lost."""
    first, second, third = runs(ticks(SYMBOLS, 300), (100, 200))
    with ExitStack() as stack:
        stores = Stores(three.url, postgres_database, stack, cluster=True)
        stores.flush()
        sink = stores.sink()
        online, redis = worker(sink), sink.redis
        marks = FillMarks(stores.redis())
        stores.rebuild().fill(KEPT, TOPIC, quiet)
        online.materialize(first, GO_ON)
        with stores.client() as client:
            state = stored_state(client, "price", "S1")
            online.materialize(second, GO_ON)
            store_state(client, "price", "S1", state)
        run, refused = redis.run, []

        def refuse_twice(script: str, *given: Any) -> Any:
            if script == scripts.LOSE and len(refused) < 2:
                refused.append(given)
                raise StoreUnavailable("the node does not answer")
            return run(script, *given)

        stack.enter_context(patch.object(redis, "run", refuse_twice))
        with pytest.raises(StatesLost, match="older state of 'S1'"):
            online.materialize(third, GO_ON)
        assert len(refused) == 2
        assert marks.unfilled(TOPIC) == [0]


@pytest.mark.parametrize("loses", ["its last writes", "all of the entity"])
def test_a_part_of_redis_that_went_back_is_filled_anew(
    three: Cluster, postgres_database: str, loses: str
) -> None:
    """As a node of a cluster whose replica takes over; watermarks are on another node."""
    first, second, third = runs(ticks(SYMBOLS, 300), (100, 200))
    with ExitStack() as stack:
        stores = Stores(three.url, postgres_database, stack, cluster=True)
        stores.flush()
        online, offline = stores.online(), stores.offline()
        marks = FillMarks(stores.redis())
        stores.rebuild().fill(KEPT, TOPIC, quiet)
        online.materialize(first, GO_ON)
        with stores.client() as client:
            row, state = (read(client, "price", "S1") for read in (stored_row, stored_state))
            online.materialize(second, GO_ON)
            if loses == "its last writes":
                store_row(client, "price", "S1", row)
                store_state(client, "price", "S1", state)
            else:
                stores.forget("S1")
        with pytest.raises(StatesLost, match="older state of 'S1'"):
            online.materialize(third, GO_ON)
        assert marks.unfilled(TOPIC) == [0]
        for run in (first, second, third):
            offline.materialize(run, GO_ON)
        stores.rebuild().fill(KEPT, TOPIC, quiet)
        rebuilt = stores.rows(), stores.states(SYMBOLS)

        stores.flush()
        alone = stores.online()
        for run in (first, second, third):
            alone.materialize(run, GO_ON)
        assert (stores.rows(), stores.states(SYMBOLS)) == rebuilt
