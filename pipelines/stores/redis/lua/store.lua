-- Write entities, as `entities.lua` has it, and nothing else.

return write(1, 1)
