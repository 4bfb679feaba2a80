-- Whether newer rules than `rules` decide any offset before `following`; `stored` has the id of each
-- rules that began in the partition, and their first offset: `7:120,9:300`.

local function others_hold(stored, rules, following)
  for newer, begin in string.gmatch(stored or '', '(%d+):(%d+)') do
    if tonumber(newer) > tonumber(rules) and tonumber(begin) < tonumber(following) then
      return true
    end
  end
  return false
end
