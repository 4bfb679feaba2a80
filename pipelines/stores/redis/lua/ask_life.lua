-- The life of the server, as `life.lua` defines it.

return life()
