"""The numpy arrays that columns are made of, by the type of an element."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
