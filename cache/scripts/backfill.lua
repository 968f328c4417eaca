-- Writes an item of a page that was read from the master table, where nothing is there. Rule 8 of the cache protocol.
--
-- KEYS[1]  the item's key
-- ARGV[1]  the entry, its floor zero: header and payload
-- ARGV[2]  its time to live in ms; 0: it stays
-- ARGV[3]  when the read of the page began, ms since the epoch on this server's clock
-- ARGV[4]  the age, in ms, beyond which the page is too old
-- ARGV[5]  the page must have been read after this time, ms since the epoch: until then changes may have been left
--          absent without a trace, because of evictions; 0: there were none
-- ARGV[6]  how many keys the server has evicted; '': it evicts nothing
--
-- Answers: 1 written, 2 something is there, 3 too late, 5 the key holds a value that is not an entry of this version.

local held, answer = read_header(KEYS[1])
if not held then
    return answer
end
if held ~= '' then
    return 2
end
-- A read in the future was timed by another server's clock.
local read_ms = tonumber(ARGV[3])
local age_ms = server_now_ms() - read_ms
if age_ms < 0 or age_ms > tonumber(ARGV[4]) or read_ms <= tonumber(ARGV[5]) or not evicted_no_more(ARGV[6]) then
    return 3
end
return write(KEYS[1], ARGV[1], ARGV[2])
