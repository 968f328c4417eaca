-- Writes the state after one change, if it is newer than what is there. Rules 1, 4, 5 and 6 of the cache protocol.
--
-- KEYS[1]  the item's key
-- ARGV[1]  the new entry: header and payload
-- ARGV[2]  its time to live in ms; 0: it stays
-- ARGV[3]  when the change was made, ms since the epoch
-- ARGV[4]  the deadline, ms since the epoch on this server's clock
-- ARGV[5]  how long an entry stays that keeps its floor only, ms
-- ARGV[6]  1: only keys that have an entry are kept current, the others are skipped; 0: every change is written
-- ARGV[7]  a margin in ms: what was made so long before a fill's read is in what it read. '': not asked for; given
--          always with ARGV[6] = 1
-- What may create an entry, or replace one that the stream did not write:
-- ARGV[8]  changes no older than this, ms
-- ARGV[9]  changes made after this time, ms since the epoch: until then floors may have been evicted; 0: none were
-- ARGV[10] while the server has evicted so many keys; '': it evicts nothing
--
-- Answers: 1 written, 2 stale (the entry holds this position or a later one), 3 left absent (nothing proves that
-- the change is news: readers miss, which is always safe), 4 past the deadline, 5 the key holds a value that is not an
-- entry of this version, 6 covered (the item is as new; its floor was raised), 7 skipped.

local now_ms = server_now_ms()
if now_ms >= tonumber(ARGV[4]) then
    return 4
end
local held, answer = read_header(KEYS[1])
if not held then
    return answer
end
local position = string.sub(ARGV[1], 3, 32)
if held ~= '' and floor_of(held) >= position then
    return 2
end

local created_ms = tonumber(ARGV[3])
local is_filled = string.find(held, '^1[fyn]')

if is_filled and ARGV[7] ~= '' and created_ms < time_of(held) - ARGV[7] then
    local raised = redis.pcall('SETRANGE', KEYS[1], 2, position)
    if type(raised) == 'table' then
        return failed(raised)
    end
    -- A negative entry is short-lived, its floor must not be. An item stays until what its read covers is too old to
    -- create an entry.
    if kind_of(held) == 'n' then
        local left_ms = redis.call('PTTL', KEYS[1])
        if left_ms >= 0 and left_ms < tonumber(ARGV[5]) then
            redis.call('PEXPIRE', KEYS[1], ARGV[5])
        end
    end
    return 6
end

if ARGV[6] == '1' then
    if held == '' then
        return 7
    end
    -- A skipped change leaves no trace: an old one that is delivered again, after a newer one was skipped, looks
    -- like news. Only what was made after the entry's item was read has surely never been skipped. Of anything else
    -- the position is kept, and the next reader fills.
    if string.find(held, '^1[hi]') or (is_filled and created_ms <= time_of(held) + ARGV[7]) then
        return write(KEYS[1], '1i' .. string.sub(ARGV[1], 3, 40), ARGV[5])
    end
elseif not string.find(held, '^1[lxt]') then
    -- Only an entry that the stream wrote has seen all that came after it. Anything else proves nothing of what is
    -- above its floor: a newer change may have been here, and its entry have been evicted. An item that a fill
    -- brought may be older than this change, so it goes.
    local is_news = now_ms - created_ms <= tonumber(ARGV[8])
        and created_ms > tonumber(ARGV[9])
        and evicted_no_more(ARGV[10])
    if not is_news then
        redis.call('DEL', KEYS[1])
        return 3
    end
end

return write(KEYS[1], ARGV[1], ARGV[2])
