-- For the scripts that write a time of their own.

-- The eight base-36 digits of a time in ms. Doubles are exact far beyond them.
local function time_text(ms)
    local text = ''
    for _ = 1, 8 do
        local digit = ms % 36
        text = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', digit + 1, digit + 1) .. text
        ms = (ms - digit) / 36
    end
    return text
end

