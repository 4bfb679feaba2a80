-- Write entities as another store knows them (`entities.lua`), in any row schema, on a cluster.

return write(1, 1, false)
