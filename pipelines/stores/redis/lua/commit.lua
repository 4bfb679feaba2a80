-- Store a part of a run, some of its entities, where one server has every key.
--
-- KEYS: the partition's writer, the topic's incarnations, the partition's watermark, its filled mark,
-- its rules, the offset before which runs were begun, the greatest row schema of the source, the
-- source's hashes of rows, of states and of chunks, and of each entity that joins or leaves groups
-- those that `members_of.lua` says. ARGV: the sink's token, the number of the part among all that the
-- sink has sent with that token, the incarnation, the offsets at which the run begins and ends, which
-- part of the run it is ("only", "first", "middle" or "last"), whether a watermark and a filled mark
-- must exist ("1" or ""), the id of the rules that decided the run, the id of the row schema; then
-- lists, each its length and as many elements: entities to compare, the identity of the state that is
-- expected of each ("" for none), rows and states, each after its entity, new chunks, each after its
-- field, fields of chunks that are dropped; and what `members_of.lua` says.
--
-- Returns false when all of it is stored; with the last part the watermark becomes the run's end. Else
-- nothing was written, and it returns {"another writer"} where another sink may write the partition,
-- or a part before this one was not stored; {"recreated"} for a run of an incarnation that is over;
-- {"other rules"} where newer ones hold; {"moved", watermark} where the run does not begin at the
-- watermark, or where the watermark or the mark is missing; {"schema"} for a run in an older row
-- schema than one that was stored; {"conflict", entities …} where the state of an entity is not the
-- expected one.

local WRITER, INCARNATIONS, WATERMARK, FILLED, RULES, BEGUN, SCHEMA = 1, 2, 3, 4, 5, 6, 7
local ROWS, STATES, CHUNKS, MEMBERS = 8, 9, 10, 11
local token, number, incarnation, base, following, part = unpack(ARGV, 1, 6)
local watermark_must_exist, filled_must_exist, rules, schema = unpack(ARGV, 7, 10)
local COMPARED = 11
local AT_ONCE = 7800 -- unpack() takes less than 8,000 values

if redis.call('GET', KEYS[WRITER]) ~= token .. ':' .. number then
  return {'another writer'}
end
local current = redis.call('LINDEX', KEYS[INCARNATIONS], -1)
if current and current ~= incarnation then
  return {'recreated'}
end
if others_hold(redis.call('GET', KEYS[RULES]), rules, following) then
  return {'other rules'}
end
local stored = redis.call('GET', KEYS[WATERMARK])
local filled = redis.call('GET', KEYS[FILLED])
if
  (watermark_must_exist ~= '' and not stored)
  or (filled_must_exist ~= '' and filled ~= FILLED_MARK)
then
  return {'moved', ''}
end
if stored and stored ~= base then
  return {'moved', stored}
end
local newest = tonumber(redis.call('GET', KEYS[SCHEMA]) or 0)
if newest > tonumber(schema) then
  return {'schema'}
end

-- The index after the list that begins at ARGV[arg].
local function past(arg)
  return arg + 1 + tonumber(ARGV[arg])
end

-- Calls a command with the list that begins at ARGV[arg], at most AT_ONCE elements at once, an even
-- number; returns the answers.
local function each(command, key, arg)
  local last = past(arg) - 1
  local answers = {}
  for first = arg + 1, last, AT_ONCE do
    answers[#answers + 1] =
      redis.call(command, key, unpack(ARGV, first, math.min(last, first + AT_ONCE - 1)))
  end
  return answers
end

local states = each('HMGET', KEYS[STATES], COMPARED)
local identities = past(COMPARED)
local conflicts = {'conflict'}
for i = 1, tonumber(ARGV[identities]) do
  local state = states[math.floor((i - 1) / AT_ONCE) + 1][(i - 1) % AT_ONCE + 1]
  if string.sub(state or '', 1, IDENTITY_BYTES) ~= ARGV[identities + i] then
    conflicts[#conflicts + 1] = ARGV[COMPARED + i]
  end
end
if #conflicts > 1 then
  return conflicts
end

-- Where a command fails, as without the right to it, what came before it stays. The run is stored again
-- then, as long as the states are the earlier ones: so they are written after what belongs to them, and
-- before what only they no longer need.
if part == 'first' then
  may_be_ahead(KEYS[BEGUN], following)
end
local new_rows = past(identities)
local new_states = past(new_rows)
local new_chunks = past(new_states)
local dropped = past(new_chunks)
local key, arg = MEMBERS, past(dropped)
while arg <= #ARGV do
  key, arg = belong(key, arg)
end
each('HSET', KEYS[ROWS], new_rows)
each('HSET', KEYS[CHUNKS], new_chunks)
each('HSET', KEYS[STATES], new_states)
each('HDEL', KEYS[CHUNKS], dropped)
if newest < tonumber(schema) then
  redis.call('SET', KEYS[SCHEMA], schema)
end
if part == 'only' or part == 'last' then
  redis.call('SET', KEYS[WATERMARK], following)
end
redis.call('SET', KEYS[WRITER], token .. ':' .. (tonumber(number) + 1))
return false
