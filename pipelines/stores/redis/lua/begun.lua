-- Note that entities may be ahead of the partition's watermark, up to an offset. `key` is that of the
-- greatest one.

local function may_be_ahead(key, following)
  local begun = redis.call('GET', key)
  if not begun or tonumber(begun) < tonumber(following) then
    redis.call('SET', key, following)
  end
end

