"""The Lua scripts of the online store and of hot, by name.

A script is the prelude, where it needs one, and its parts. The prelude declares the layouts of
`registry.formats` and the mark of a filled partition, so that no script repeats them. Each begins
with the line by which a cluster checks that a script uses no other keys than it was given.
"""

from __future__ import annotations

from registry.formats.entity_name import SEPARATOR
from registry.formats.hot import HOT_HEADER
from registry.formats.layout import lua_constants
from registry.formats.redis_keys import FILLED_MARK
from registry.formats.row import HEADER
from registry.formats.state import CLOSED_BYTES, IDENTITY, STATE_HEADER
from registry.resources import lua

ENGINE = "#!lua\n"
LAYOUTS = (
    STATE_HEADER.lua("STATE")
    + HEADER.lua("ROW")
    + lua_constants({"CLOSED": CLOSED_BYTES, "SEPARATOR": SEPARATOR.encode()})
    + f"local IDENTITY_BYTES = {IDENTITY.size}\n"
)
FILLED = lua_constants({"FILLED_MARK": FILLED_MARK})


def _script(*parts: str, prelude: str = "") -> str:
    return ENGINE + prelude + lua(__package__, *parts)


MEMBERS = _script("members_of", "members", prelude=LAYOUTS)
STORE = _script("members_of", "entities", "store", prelude=LAYOUTS)
RESTORE = _script("members_of", "entities", "restore", prelude=LAYOUTS)
RESTORE_SLOT = _script("members_of", "entities", "restore_slot", prelude=LAYOUTS)
BEGIN_WRITING = _script("begin_writing")
COMMIT = _script("rules", "begun", "members_of", "commit", prelude=LAYOUTS + FILLED)
ADVANCE = _script("rules", "advance")
BEGIN_STEPS = _script("rules", "begun", "begin_steps", prelude=FILLED)
LOSE = _script("begun", "lose")
BEGIN_RULES = _script("begin_rules")
SETTLE = _script("settle")
CLAIM = _script("claim", prelude=FILLED)
FINISH = _script("finish", prelude=FILLED)
BEGIN_CARRYING = _script("begin_carrying")
RAISE_SCHEMA = _script("raise_schema")
CARRY_OVER = _script("members_of", "entities", "carry_over", prelude=LAYOUTS)
FINISH_CARRYING = _script("finish_carrying")
FEED = _script("feed", prelude=HEADER.lua("ROW") + HOT_HEADER.lua("HOT"))
MARK = _script("mark")
END_MARK = _script("end_mark")
