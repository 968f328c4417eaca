-- Takes the right to fill a key after a miss. Rule 2 of the cache protocol.
--
-- KEYS[1]  the item's key
-- ARGV[1]  a token that nobody else has: 32 hex digits
-- ARGV[2]  how long it is held against others, ms
-- ARGV[3]  how long the held entry stays if it keeps no floor, ms
-- ARGV[4]  how long it stays if it keeps one, ms
--
-- Answers: {1, now} taken; now is this server's time in ms, from before the master can be read with the token.
-- {2} held by another. {3, entry} there is an entry to be read; a live one past its item's own expiry is such a one,
-- it is known to be absent. 5 the key holds a value that is not an entry of this version.

local held, answer = read_header(KEYS[1])
if not held then
    return answer
end

local now_ms = server_now_ms()
local floor, ttl_ms = string.rep('0', 30), ARGV[3]
if held ~= '' then
    local kind = kind_of(held)
    if kind == 'h' then
        if now_ms < time_of(held) then
            return { 2 }
        end
    elseif kind ~= 'i' and not (kind == 'n' and now_ms >= tonumber(string.sub(held, 41, 48), 36)) then
        return { 3, redis.call('GET', KEYS[1]) }
    end
    if has_floor(held) then
        floor, ttl_ms = floor_of(held), ARGV[4]
    end
end

local written = write(KEYS[1], '1h' .. floor .. time_text(now_ms + ARGV[2]) .. ARGV[1], ttl_ms)
return written == 1 and { 1, now_ms } or written
