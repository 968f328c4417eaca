-- Sets the region's watermark, unless the caller was stopped for too long. Rule 6 of the cache protocol.
--
-- KEYS[1]  the watermark's key
-- ARGV[1]  the watermark: ms since the epoch, in decimal digits
-- ARGV[2]  the deadline, ms since the epoch on this server's clock
--
-- Answers: 1 set, 4 past the deadline.

if server_now_ms() >= tonumber(ARGV[2]) then
    return 4
end
return write(KEYS[1], ARGV[1], '0')
