-- Members of groups, and the last closes of groups.
--
-- Of each entity that is summed over, KEYS are the set of members under its message key, and the keys
-- of the last close in each of its groups, one more than there are separators in the member. ARGV are
-- the member ("" for an entity that is none, which has no keys), and, packed, the event time at which
-- it was closed ("" for one that is open).

-- Whether the event time that a last close begins with is later than the one in these bytes. In one
-- number of Lua the last digits of a time would be lost.
local function later(close, time)
  local high, low = struct.unpack('>I4I4', close)
  local other_high, other_low = struct.unpack('>I4I4', time)
  return high > other_high or (high == other_high and low > other_low)
end

-- The indexes of the key and of the argument after those of an entity.
local function past_member(key, arg)
  local member = ARGV[arg]
  if member == '' then
    return key, arg + 2
  end
  local _, separators = string.gsub(member, SEPARATOR, '')
  return key + 2 + separators, arg + 2
end

-- Makes an entity a member, or with the time of its close none, and its close the last one of its
-- groups unless a later one is known.
local function join(key, past, member, closed)
  if closed == '' then
    redis.call('SADD', KEYS[key], member)
    return
  end
  redis.call('SREM', KEYS[key], member)
  for group = key + 1, past - 1 do
    local close = redis.call('GET', KEYS[group])
    if not close or not later(close, closed) then
      redis.call('SET', KEYS[group], closed .. member)
    end
  end
end

-- Does that for the entity whose keys begin at KEYS[key] and arguments at ARGV[arg]; returns where
-- those of the next one begin.
local function belong(key, arg)
  local past_key, past_arg = past_member(key, arg)
  if past_key > key then
    join(key, past_key, ARGV[arg], ARGV[arg + 1])
  end
  return past_key, past_arg
end

