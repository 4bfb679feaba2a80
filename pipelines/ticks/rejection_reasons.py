"""Why a tick is rejected; of several reasons the first one in this order is given."""

from __future__ import annotations

TOO_LARGE = "too-large"
MALFORMED = "malformed"
UNSUPPORTED_OP = "unsupported-op"
UNKNOWN_FIELD_TYPE = "unknown-field-type"
NOT_FINITE = "not-finite"
NOT_POSITIVE = "not-positive"
OUT_OF_RANGE = "out-of-range"
KEY_MISMATCH = "key-mismatch"
FROM_THE_FUTURE = "from-the-future"
WRONG_PARTITION = "wrong-partition"
DUPLICATE = "duplicate"
LATE = "late"

REASONS = (
    TOO_LARGE,
    MALFORMED,
    UNSUPPORTED_OP,
    UNKNOWN_FIELD_TYPE,
    NOT_FINITE,
    NOT_POSITIVE,
    OUT_OF_RANGE,
    KEY_MISMATCH,
    FROM_THE_FUTURE,
    WRONG_PARTITION,
    DUPLICATE,
    LATE,
)
