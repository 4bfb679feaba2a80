-- The life of the server: an identifier that changes when the server is started again, or when a
-- replica takes over. "" where the user has no permission to read it.

local function life()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
end

