//! Fixed-width numbers in the digits `0-9a-z`.
//!
//! Digits and lower-case letters sort alike in every locale, so texts of equal width compare as the numbers
//! do, also under `strcoll` (which is how Lua in Redis compares strings).

/// Digits that always fit a `u64`: 36^12 is below 2^63.
pub(crate) const CHUNK_DIGITS: usize = 12;

/// 36 to the power of [`CHUNK_DIGITS`].
pub(crate) const CHUNK_RADIX: u64 = 36u64.pow(12);

const DIGITS: [u8; 36] = *b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Fills `out` with the lowest `out.len()` digits of `value`, leading zeros included.
#[expect(clippy::indexing_slicing, reason = "a remainder of 36 indexes 36 digits")]
pub(crate) fn encode(mut value: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = DIGITS[(value % 36) as usize];
        value /= 36;
    }
}

/// Reads a number of at most [`CHUNK_DIGITS`] digits; the error is the index of the first byte that is no digit.
pub(crate) fn decode(text: &[u8]) -> Result<u64, usize> {
    debug_assert!(text.len() <= CHUNK_DIGITS, "{} digits may overflow", text.len());
    let mut value = 0u64;
    for (index, byte) in text.iter().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return Err(index),
        };
        value = value * 36 + u64::from(digit);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_chunk_is_all_z_and_reads_back() {
        let mut text = [0; CHUNK_DIGITS];
        encode(CHUNK_RADIX - 1, &mut text);
        assert_eq!(&text, b"zzzzzzzzzzzz");
        assert_eq!(decode(&text), Ok(CHUNK_RADIX - 1));
    }

    #[test]
    fn every_byte_but_the_36_digits_is_refused() {
        for byte in 0..=u8::MAX {
            let is_digit = byte.is_ascii_digit() || byte.is_ascii_lowercase();
            assert_eq!(decode(&[b'0', byte]).is_ok(), is_digit, "byte {byte:#04x}");
        }
    }
}
