"""What the kernel says of an explained value: the second opinion beside the steps.

The steps are computed in plain Python (`registry.language.worked`). Here the compiled kernel that
live and backfills have computes the same version of the same ticks.
"""

from __future__ import annotations

import numpy as np

from pipelines.backfill.computing import program_of
from pipelines.compute.recomputation import AcceptedTicks, Recomputation
from registry.definitions import Catalog
from registry.formats.row import ValueStatus
from serving.history.explanation import Explanation
from serving.history.window_ticks import OPERATIONS

KERNEL = "computed by the kernel"


def add_kernel(catalog: Catalog, explained: Explanation) -> None:
    """Add to the explanation of a stored value what the kernel computes of its ticks."""
    ticks, field = explained.ticks, explained.field
    own = next((proof for proof in explained.proofs), None)
    if not ticks or field is None or own is None:
        return
    computed = Recomputation(program_of(catalog, explained.feature)).compute(
        AcceptedTicks(
            entity=np.zeros(len(ticks), np.int32),
            op=np.array([OPERATIONS.index(tick.op) for tick in ticks], np.uint8),
            field=np.array([tick.fields[field].double for tick in ticks], np.float64),
            closed=np.array([ticks[0].closed]),
        )
    )
    value = float(computed.features[-1, 0])
    status = ValueStatus(int(computed.status[-1, 0])).name.lower()
    explained.prove(KERNEL, (value, status), (own.found.double, own.found_status))
