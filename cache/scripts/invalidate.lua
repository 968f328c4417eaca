-- Makes readers miss, whatever is there; the floor stays. Rule 7 of the cache protocol.
--
-- Never "drop if older": a wrong entry may hold the newest position.
--
-- KEYS[1]  the item's key
-- ARGV[1]  how long the invalid entry stays, ms
--
-- Answers: 1 done, 0 nothing is there, which is a miss already, 5 the key holds a value that is not an entry of
-- this version.

local held, answer = read_header(KEYS[1])
if not held then
    return answer
end
if held == '' then
    return 0
end
return write(KEYS[1], '1i' .. floor_of(held) .. time_text(server_now_ms()), ARGV[1])
