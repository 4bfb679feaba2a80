"""What a process of the server takes, under the names that Prometheus's own libraries use.

Their collector also counts open files, which takes as long as there are connections, in the thread
that serves.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

STATM = Path("/proc/self/statm")
"""The memory of this process, in pages: all of it, then what is resident. Linux alone has it."""


def process_families() -> Iterator[Metric]:
    """Makes the metrics of this process; without `STATM` its memory is left out."""
    seconds = CounterMetricFamily("process_cpu_seconds", "Processor time, in seconds")
    seconds.add_metric([], time.process_time())
    memory = GaugeMetricFamily("process_resident_memory_bytes", "Resident memory, in bytes")
    if STATM.exists():
        memory.add_metric([], int(STATM.read_text().split()[1]) * float(resource.getpagesize()))
    yield from (seconds, memory)
