-- Writes what the master table had, if no change came since the token was taken. Rule 3 of the cache protocol.
--
-- KEYS[1]  the item's key
-- ARGV[1]  the token with which the key was taken, before the master was read
-- ARGV[2]  the entry, its floor zero: header and payload
-- ARGV[3]  its time to live in ms if there is no floor to keep; 0: it stays
-- ARGV[4]  its time to live in ms if there is one; 0: it stays
--
-- Answers: 1 written, 0 refused (the key is not held with this token, so something came in between), 5 the key
-- holds a value that is not an entry of this version.

local held, answer = read_header(KEYS[1])
if not held then
    return answer
end
if not string.find(held, '^1h') or redis.call('GETRANGE', KEYS[1], 40, -1) ~= ARGV[1] then
    return 0
end
if not has_floor(held) then
    return write(KEYS[1], ARGV[2], ARGV[3])
end
local written = write(KEYS[1], ARGV[2], ARGV[4])
if written == 1 then
    -- In place: to join the floor and the payload here would copy the payload.
    redis.call('SETRANGE', KEYS[1], 2, floor_of(held))
end
return written
