-- Write entities (`entities.lua`), and nothing else.

return write(1, 1, true)
