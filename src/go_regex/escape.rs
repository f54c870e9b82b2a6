//! Escape sequences that stand for one character.

use super::error::{RegexError, RegexProblem};

/// The largest code point.
const LAST: u32 = 0x10_ffff;

/// Reads the escape sequence at the beginning of `text`, which begins with a backslash: a code point, and the octets
/// it took. The code point may be
/// a surrogate, which no text has.
pub(super) fn read(text: &str, at: usize) -> Result<(u32, usize), RegexError> {
    let mut characters = text.chars();
    characters.next();
    let Some(kind) = characters.next() else {
        return Err(RegexError { at, problem: RegexProblem::TrailingBackslash });
    };
    let rest = characters.as_str();
    let value = match kind {
        '0'..='7' => octal(kind, rest),
        'x' => hexadecimal(rest),
        'a' => Some((0x07, 0)),
        'f' => Some((0x0c, 0)),
        'n' => Some((0x0a, 0)),
        'r' => Some((0x0d, 0)),
        't' => Some((0x09, 0)),
        'v' => Some((0x0b, 0)),
        _ if kind.is_ascii() && !kind.is_ascii_alphanumeric() => Some((u32::from(kind), 0)),
        _ => None,
    };
    match value {
        Some((value, taken)) => Ok((value, 1 + kind.len_utf8() + taken)),
        None => {
            // Enough of a malformed `\x{…}` to recognise it.
            let shown = if kind == 'x' { rest.chars().take(4).collect() } else { String::new() };
            Err(RegexError { at, problem: RegexProblem::Escape(format!("\\{kind}{shown}")) })
        }
    }
}

/// Up to three octal digits; a single one that is not 0 would be a back-reference, which there is not.
fn octal(first: char, rest: &str) -> Option<(u32, usize)> {
    let more = rest.bytes().take(2).take_while(|octet| matches!(octet, b'0'..=b'7')).count();
    if first != '0' && more == 0 {
        return None;
    }
    let digits = rest.get(..more)?;
    u32::from_str_radix(&format!("{first}{digits}"), 8).ok().map(|value| (value, more))
}

/// Two hexadecimal digits, or any number of them in braces.
fn hexadecimal(rest: &str) -> Option<(u32, usize)> {
    let (digits, taken) = match rest.strip_prefix('{') {
        Some(inner) => inner.split_once('}').map(|(digits, _)| (digits, digits.len() + 2))?,
        None => (rest.get(..2)?, 2),
    };
    let is_hexadecimal = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_hexdigit());
    let significant = digits.trim_start_matches('0');
    let value = if significant.is_empty() { 0 } else { u32::from_str_radix(significant, 16).ok()? };
    (is_hexadecimal && value <= LAST).then_some((value, taken))
}
