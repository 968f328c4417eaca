-- Writes the state after one change, if it is newer than what is there. Rules 1, 5 and 6 of the cache protocol.
--
-- KEYS[1]  the item's key
-- ARGV[1]  the new entry: 40 bytes of header, then the payload
-- ARGV[2]  when the change was made, ms since the epoch
-- ARGV[3]  the age, in ms, beyond which a change may not create an entry
-- ARGV[4]  the deadline, ms since the epoch on this server's clock
-- ARGV[5]  the entry's time to live in ms; 0: it stays
--
-- Answers: 1 written, 2 stale (the entry holds this position or a later one), 3 too old for an absent entry,
-- 4 past the deadline, 5 the key holds a value that is not an entry of this version. Only 1 and 3 change anything.

-- Servers before 7.0 put '@user_script: <line>: -' before the code of an error, and a line end behind it.
-- Whoever reads the reply looks for the code at its start.
local function failed(reply)
    local text = string.gsub(reply.err, '^@user_script: ?%d+: ', '')
    text = string.gsub(text, '^%-', '')
    text = string.gsub(text, '%c', '')
    return redis.error_reply(text)
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
if now_ms >= tonumber(ARGV[4]) then
    return 4
end

-- The header alone: values are large.
local held = redis.pcall('GETRANGE', KEYS[1], 0, 39)
if type(held) == 'table' then
    if string.find(held.err, 'WRONGTYPE', 1, true) then
        return 5
    end
    return failed(held)
end

local floor = nil
if held ~= '' then
    if #held < 40 or not string.find(held, '^1[ltnih][0-9a-z]+$') then
        return 5
    end
    -- Lua compares strings by the server's locale. Texts of equal width in digits and lower-case letters sort
    -- the same in every one.
    floor = string.sub(held, 3, 32)
    if floor >= string.sub(ARGV[1], 3, 32) then
        return 2
    end
end

-- Without a floor nothing proves that this change is news: the tombstone that would have refused it may have
-- expired. A fill's entry without a floor may be older than the change, so it goes: a miss is always safe.
if (floor == nil or floor == string.rep('0', 30)) and now_ms - tonumber(ARGV[2]) > tonumber(ARGV[3]) then
    if floor then
        redis.call('DEL', KEYS[1])
    end
    return 3
end

local written
if tonumber(ARGV[5]) > 0 then
    written = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[5])
else
    written = redis.pcall('SET', KEYS[1], ARGV[1])
end
if written.err then
    return failed(written)
end
return 1
