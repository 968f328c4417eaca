-- Stands before every script of this folder: an entry's header, the server's clock, writing, errors.
-- The header is documented in proto/src/entry.rs.

-- Servers before 7.0 put '@user_script: <line>: -' before the code of an error, and a line end behind it.
-- Whoever reads the reply looks for the code at its start.
local function failed(reply)
    local text = string.gsub(reply.err, '^@user_script: ?%d+: ', '')
    text = string.gsub(text, '^%-', '')
    text = string.gsub(text, '%c', '')
    return redis.error_reply(text)
end

local function server_now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The header of the key's entry, '' where there is none. Or nil and the script's answer: 5, or an error.
-- The header alone is read: values are large.
local function read_header(key)
    local text = redis.pcall('GETRANGE', key, 0, 47)
    if type(text) == 'table' then
        if string.find(text.err, 'WRONGTYPE', 1, true) then
            return nil, 5
        end
        return nil, failed(text)
    end
    if text == '' then
        return ''
    end
    -- What has an expiry has a header of 48 bytes, the other kinds one of 40. A payload may have any bytes.
    local has_expiry = string.find(text, '^1[xyn]')
    local header = has_expiry and text or string.sub(text, 1, 40)
    if #header < (has_expiry and 48 or 40) or not string.find(header, '^1[lxfytnih][0-9a-z]+$') then
        return nil, 5
    end
    return header
end

-- The parts of a header. Lua compares strings by the server's locale; texts of equal width in digits and lower-case
-- letters sort the same in every one.
local function kind_of(header) return string.sub(header, 2, 2) end
local function floor_of(header) return string.sub(header, 3, 32) end
local function time_of(header) return tonumber(string.sub(header, 33, 40), 36) end
local function has_floor(header) return string.find(header, '[^0]', 3) < 33 end

-- Writes a value to stay for ttl_ms ('0': until it is evicted). Answers 1, or the error.
local function write(key, value, ttl_ms)
    local written
    if ttl_ms == '0' then
        written = redis.pcall('SET', key, value)
    else
        written = redis.pcall('SET', key, value, 'PX', ttl_ms)
    end
    if written.err then
        return failed(written)
    end
    return 1
end

