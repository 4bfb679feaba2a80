"""Versions on a schedule: `python -m benchmarks.recorder POSTGRES BEGIN END EVERY FIRST`.

From BEGIN to END of the monotonic clock a version of a new feature is recorded each EVERY seconds,
by the typed interface: a mean over FIRST ticks, then over one more, and so on.
"""

from __future__ import annotations

import sys
import time

from registry.database.engine import connect
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry


def main() -> None:
    begin, end, every = (float(word) for word in sys.argv[2:5])
    engine = connect(sys.argv[1])
    registry, at, ticks = Registry(engine, By("bench")), begin, int(sys.argv[5])
    registry.catalog()  # connected before the first is due
    while at < end:
        time.sleep(max(0.0, at - time.monotonic()))
        schema = {"source": "price", "expression": f"mean(price, {ticks})"}
        registry.create_feature_version(f"mean_{ticks}", "1.0.0", schema)
        at, ticks = at + every, ticks + 1
    engine.dispose()


if __name__ == "__main__":
    main()
