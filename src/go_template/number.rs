//! Numbers as Go writes them: `12`, `-0x1F`, `0b1`, `0o7`, `1_000`, `1.5e3`.

use super::value::Value;

/// The value of a number that stands in a template: whole without a dot or exponent. `None` if it is none.
pub(super) fn constant(text: &str) -> Option<Value> {
    if let Some(whole) = whole(text) {
        return Some(Value::Int(whole));
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_decimal = unsigned
        .bytes()
        .all(|octet| octet.is_ascii_digit() || matches!(octet, b'.' | b'e' | b'E' | b'+' | b'-' | b'_'));
    if !is_decimal || !unsigned.contains(['.', 'e', 'E']) {
        return None;
    }
    without_separators(unsigned, true)?
        .parse::<f64>()
        .ok()
        .filter(|value| value.is_finite())
        .map(|value| Value::Float(if text.starts_with('-') { -value } else { value }))
}

fn whole(text: &str) -> Option<i64> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = i128::from(unsigned(digits, 0)?);
    i64::try_from(if is_negative { -value } else { value }).ok()
}

/// Digits of a base from 2 to 36; base 0: as a prefix says (`0x`, `0o`, `0`, `0b`), with `_` between digits.
pub(super) fn unsigned(text: &str, base: u32) -> Option<u64> {
    if base != 0 {
        let is_number = !text.is_empty() && text.chars().all(|digit| digit.is_digit(base));
        return is_number.then(|| u64::from_str_radix(text, base).ok()).flatten();
    }
    let lower = text.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // A separator may follow a prefix.
    let digits = if base == 10 { digits } else { digits.strip_prefix('_').unwrap_or(digits) };
    unsigned(&without_separators(digits, false)?, base)
}

/// `None` if a `_` does not stand between two digits.
fn without_separators(text: &str, is_decimal: bool) -> Option<String> {
    let octets = text.as_bytes();
    let is_digit = |index: Option<usize>| {
        let octet = index.and_then(|index| octets.get(index));
        octet.is_some_and(|octet| if is_decimal { octet.is_ascii_digit() } else { octet.is_ascii_hexdigit() })
    };
    let is_right =
        |index: usize| octets[index] != b'_' || (is_digit(index.checked_sub(1)) && is_digit(Some(index + 1)));
    (0..octets.len()).all(is_right).then(|| text.replace('_', ""))
}
