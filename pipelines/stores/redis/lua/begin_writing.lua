-- Make a sink the one that may write a partition.
--
-- KEYS: the partition's writer. ARGV: a token of the sink. What a sink before still sends is refused.

redis.call('SET', KEYS[1], ARGV[1] .. ':0')
return false
