-- Changes a primary's marker, unless somebody else did since it was read. Rule 9 of the cache protocol.
--
-- KEYS[1]  the marker
-- ARGV[1]  what was read there; '': nothing
-- ARGV[2]  what it shall be
--
-- Answers what is there now.

local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then
    return found
end
local written = redis.pcall('SET', KEYS[1], ARGV[2])
if written.err then
    return failed(written)
end
return ARGV[2]
