//! Text for terminals, without what a terminal obeys.
//!
//! Keys, items and what servers say are written by others. A report that showed them as they are would let them move the
//! cursor, colour or hide lines, rename the window, or turn the direction of the text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with every control character but the line feed and the tab, and every character that turns the direction of
/// text, as `\u009b`: which is what JSON has for it, so that a JSON document stays the same document.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_obeyed(character) {
            // Writing to a string does not fail.
            let _infallible = write!(plain, "\\u{:04x}", u32::from(character));
        } else {
            plain.push(character);
        }
    }
    Cow::Owned(plain)
}

fn is_obeyed(character: char) -> bool {
    let is_direction = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    is_direction || (character.is_control() && !matches!(character, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert!(matches!(plain("user-1\n\tÄ 日本 🦀"), Cow::Borrowed(_)));
        assert_eq!(plain("a\u{1b}[2J\u{7}b\r"), "a\\u001b[2J\\u0007b\\u000d");
        assert_eq!(plain("\u{9b}31m\u{7f}"), "\\u009b31m\\u007f");
        assert_eq!(plain("admin\u{202e}fdp"), "admin\\u202efdp");
    }

    #[test]
    fn json_stays_the_document_that_it_is() {
        let value = serde_json::json!({"key": "a\u{9b}b\u{202e}c\u{1b}\u{7f}\n"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = plain(&text);
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
