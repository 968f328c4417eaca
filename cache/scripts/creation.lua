-- For the scripts that create entries on what is known of evictions.

-- Whether the server has evicted as many keys, since it started, as the caller saw. '': it evicts nothing.
-- INFO takes longer than all the rest of a script (about 15 us beside 10): only what is to create an entry asks.
local function evicted_no_more(evicted_keys)
    if evicted_keys == '' then
        return true
    end
    return string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)') == evicted_keys
end

