"""A Dask cluster on this machine, on loopback alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tickwell.embedded.ports import HOST


@contextmanager
def local_cluster(workers: int = 2) -> Iterator[Any]:
    """A scheduler and workers, each a process with one thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own sockets, which it leaves to the garbage collector
        from distributed import LocalCluster

        with LocalCluster(
            n_workers=workers, threads_per_worker=1, host=HOST, dashboard_address=None
        ) as cluster:
            yield cluster
