"""How large a message, its parts and its key may be; what exceeds a limit is rejected."""

from __future__ import annotations

MAX_MESSAGE_BYTES = 262_144
MAX_ARRAY_TICKS = 10_000
MAX_KEY_BYTES = 255
"""Bytes of UTF-8: of the message key, and of each key field of a tick."""

MAX_DEPTH = 500
"""Arrays and objects within each other. Parsers stop at a depth that depends on how deep the calls
of the program are; this limit is far below it, so that every process decides alike."""
