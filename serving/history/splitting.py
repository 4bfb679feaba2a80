"""A split of labelled rows by time, into training and test, without what both of them know.

    training           │ embargo │ test
    ───────────────────┼─────────┼──────────►
                       at

- A row is of training where its moment lies before `at`, and of the test where it lies at or after
  `at` plus the embargo.
- **Purged**: a label that ends at or after `at` is known from what happens in the test, so a row of
  training whose label reaches there is left out.
- **Embargo**: rows of the first stretch after the boundary are left out. Features look back over
  windows, so what lies close behind the boundary is nearly what lies before it.

Both are those of Marcos López de Prado, Advances in Financial Machine Learning (Wiley, 2018),
chapter 7: purging in 7.4.1, the embargo in 7.4.2. There the embargo leaves out training rows that
follow a test set; here what follows the boundary is the test, and the gap between both is the same.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serving.errors import InvalidRequest
from serving.history.entity_rows import Int64s

SPLIT = "split"
"""The column that says where rows belong."""


class Split(NamedTuple):
    """A split at a moment, nanoseconds UTC, with the column of when labels are known.

    `embargo` is in nanoseconds.
    """

    at: int
    label_end: str
    embargo: int = 0


class Share(IntEnum):
    """Where a row belongs."""

    TRAIN = 0
    TEST = 1
    PURGED = 2
    EMBARGO = 3


NAMES = [share.name.lower() for share in Share]


def shares(
    moments: Int64s, label_ends: Int64s, at: int, embargo: int = 0, first: int = 0
) -> NDArray[np.int8]:
    """The share of each row; all times are nanoseconds, `label_ends` when its label is known.

    Raises `InvalidRequest` for a label that ends before its row's moment; rows are counted from
    `first`.
    """
    early = label_ends < moments
    if early.any():
        row = first + int(early.argmax())
        raise InvalidRequest(
            f"the label of row {row} ends before the row's moment: name the column of the moments "
            "at which labels are known"
        )
    found = np.where(label_ends >= at, Share.PURGED, Share.TRAIN)
    found = np.where(moments >= at, Share.EMBARGO, found)
    found = np.where(moments >= at + embargo, Share.TEST, found)
    return found.astype(np.int8)


def column_of(found: NDArray[np.int8]) -> Any:
    """The shares of rows as texts: train, test, purged or embargo."""
    return pa.DictionaryArray.from_arrays(pa.array(found), pa.array(NAMES, pa.string()))
