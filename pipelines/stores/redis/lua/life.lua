-- What tells one life of the server from the next: it is another when it was started again, or when
-- a replica has taken its place. "" where the user may not ask.

local function life()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
end

