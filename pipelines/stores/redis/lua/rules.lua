-- Whether newer rules than `rules` decide any offset before `following`; `stored` is what
-- `begin_rules.lua` has left of the partition.

local function others_hold(stored, rules, following)
  local newer, begin = string.match(stored or '', '^(%d+):(%d+)$')
  return newer and tonumber(newer) > tonumber(rules) and tonumber(begin) < tonumber(following)
end
