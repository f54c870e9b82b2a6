//! What an agent says, made harmless for a terminal.

use std::fmt::Write as _;

/// Nothing that a terminal would obey: what is not printable ASCII as three digits for each octet, as in names
/// (RFC 1035 section 5.1).
pub(in crate::app) fn plain(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        if matches!(character, ' '..='~') {
            plain.push(character);
            continue;
        }
        for octet in character.encode_utf8(&mut [0; 4]).bytes() {
            _ = write!(plain, "\\{octet:03}");
        }
    }
    plain
}

/// The same JSON in printable ASCII: outside strings all but whitespace is that already, and in them any character may
/// be an escape (RFC 8259 section 7).
pub(in crate::app) fn plain_json(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            ' '..='~' => plain.push(character),
            '\t' | '\n' | '\r' => plain.push(' '),
            _ => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| _ = write!(plain, "\\u{unit:04x}")),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_printed_in_printable_ascii_and_means_the_same() {
        let text = "{\"name\":\t\"\u{9b}31m\u{7f}\u{202e}\u{1f600}\u{fc}\",\r\n\"escaped\":\"\\u001b\"}";
        let printed = plain_json(text);
        assert!(printed.chars().all(|character| matches!(character, ' '..='~')), "{printed:?}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&printed), read(text));
        assert!(printed.contains("\\u009b31m\\u007f\\u202e\\ud83d\\ude00"), "{printed}");
    }
}
