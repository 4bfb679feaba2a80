"""The Lua scripts of the online store, by name.

A script is the prelude, where it needs one, and its parts. The prelude declares the layouts of
`registry.formats` and the mark of a filled partition, so that no script repeats them.
"""

from __future__ import annotations

from registry.formats.layout import lua_constants
from registry.formats.redis_keys import FILLED_MARK, SEPARATOR
from registry.formats.row import HEADER
from registry.formats.state import CLOSED_BYTES, MARK, STATE_HEADER
from registry.resources import lua

LAYOUTS = (
    STATE_HEADER.lua("STATE")
    + HEADER.lua("ROW")
    + lua_constants({"MARK": MARK, "CLOSED": CLOSED_BYTES, "SEPARATOR": SEPARATOR.encode()})
)
FILLED = lua_constants({"FILLED_MARK": FILLED_MARK})


def _script(*parts: str) -> str:
    return lua(__package__, *parts)


MEMBERS = LAYOUTS + _script("entities", "members")
STORE = LAYOUTS + _script("entities", "store")
COMMIT = LAYOUTS + FILLED + _script("life", "rules", "begun", "entities", "commit")
ADVANCE = _script("life", "rules", "advance")
BEGIN_STEPS = FILLED + _script("rules", "begun", "begin_steps")
BEGIN_RULES = _script("begin_rules")
LOAD = LAYOUTS + _script("load")
SETTLE = _script("settle")
ASK_LIFE = _script("life", "ask_life")
CLAIM = FILLED + _script("claim")
FINISH = FILLED + _script("finish")
