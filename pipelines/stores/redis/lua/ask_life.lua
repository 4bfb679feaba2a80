-- Which life of the server this is, as `life.lua` has it.

return life()
