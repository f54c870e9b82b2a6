//! Names as text: master-file escapes (RFC 1035 section 5.1), written as miekg/dns writes them.

use super::wire_reader::{MAX_NAME_LENGTH, Suffixes};
use smallvec::{Array, SmallVec};
use std::fmt;

/// Octets of the longest name that is kept without the heap: most of a cluster's.
pub(super) const INLINE: usize = 64;

/// Why a text is not a domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum NameError {
    #[error("a label has {0} octets where at most 63 are allowed")]
    LabelTooLong(usize),
    #[error("the name has more than 255 octets")]
    TooLong,
    #[error("an empty label (two dots in a row)")]
    EmptyLabel,
    #[error("a malformed escape: \\ must be followed by three decimal digits up to 255, or one other character")]
    BadEscape,
}

/// The wire form of a name in presentation form.
pub(super) fn parse(text: &str) -> Result<SmallVec<[u8; INLINE]>, NameError> {
    parse_into(text)
}

/// The same in a buffer of another size.
pub(super) fn parse_into<A: Array<Item = u8>>(text: &str) -> Result<SmallVec<A>, NameError> {
    let mut wire = SmallVec::new();
    if text == "." {
        wire.push(0);
        return Ok(wire);
    }
    let mut label = SmallVec::<[u8; 64]>::new();
    let mut octets = text.bytes();
    loop {
        match octets.next() {
            Some(b'\\') => label.push(parse_escape(&mut octets)?),
            Some(b'.') => {
                finish_label(&mut wire, &mut label)?;
                if octets.len() == 0 {
                    break;
                }
            }
            Some(octet) => label.push(octet),
            None => {
                finish_label(&mut wire, &mut label)?;
                break;
            }
        }
    }
    wire.push(0);
    if wire.len() > MAX_NAME_LENGTH { Err(NameError::TooLong) } else { Ok(wire) }
}

/// The octet that follows a backslash, or that its three digits name.
fn parse_escape(octets: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let digit = |octet: Option<u8>| octet.filter(u8::is_ascii_digit).map(|octet| u16::from(octet - b'0'));
    match octets.next().ok_or(NameError::BadEscape)? {
        first @ b'0'..=b'9' => {
            let hundreds = u16::from(first - b'0') * 100;
            let tens = digit(octets.next()).ok_or(NameError::BadEscape)? * 10;
            let ones = digit(octets.next()).ok_or(NameError::BadEscape)?;
            u8::try_from(hundreds + tens + ones).map_err(|_| NameError::BadEscape)
        }
        other => Ok(other),
    }
}

fn finish_label(wire: &mut SmallVec<impl Array<Item = u8>>, label: &mut SmallVec<[u8; 64]>) -> Result<(), NameError> {
    match label.len() {
        0 => return Err(NameError::EmptyLabel),
        length @ 1..=63 => wire.push(length as u8),
        length => return Err(NameError::LabelTooLong(length)),
    }
    wire.extend_from_slice(label);
    label.clear();
    Ok(())
}

/// Octets of a label that stand for themselves in text: nearly all there are.
const IS_PLAIN: [bool; 256] = {
    let (mut plain, mut octet) = ([false; 256], 0);
    while octet < 256 {
        plain[octet] = (octet as u8).is_ascii_graphic()
            && !matches!(octet as u8, b'.' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' | b'\\');
        octet += 1;
    }
    plain
};

/// Writes one octet of a label.
fn escape(octet: u8, text: &mut SmallVec<[u8; TEXT_INLINE]>) {
    match octet {
        plain if IS_PLAIN[usize::from(plain)] => text.push(plain),
        b' '..=b'~' => text.extend_from_slice(&[b'\\', octet]),
        _ => text.extend_from_slice(&[b'\\', b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10]),
    }
}

/// Octets of text that are kept without the heap: those of the longest name whose octets need no escape.
const TEXT_INLINE: usize = 256;

/// A name's presentation form, absolute and with escapes as [`super::Name`] is displayed, to be searched and changed as
/// text. Without the heap for a name that needs no escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameText(SmallVec<[u8; TEXT_INLINE]>);

impl NameText {
    pub(super) fn of(wire: &[u8]) -> Self {
        let mut text = SmallVec::new();
        if wire.len() <= 1 {
            text.push(b'.');
        }
        for suffix in Suffixes(wire) {
            let Some((length, rest)) = suffix.split_first() else { break };
            let label = rest.get(..usize::from(*length)).unwrap_or(rest);
            if label.iter().all(|octet| IS_PLAIN[usize::from(*octet)]) {
                text.extend_from_slice(label);
            } else {
                label.iter().for_each(|octet| escape(*octet, &mut text));
            }
            if *length > 0 {
                text.push(b'.');
            }
        }
        Self(text)
    }
    pub fn as_str(&self) -> &str {
        // Of printable ASCII alone, or put together from strings.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
    pub fn push_str(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }
}

/// Writes a name in uncompressed wire form as absolute text.
pub(super) fn write(wire: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(NameText::of(wire).as_str())
}

#[cfg(test)]
mod tests {
    use super::super::Name;
    use super::NameError;

    #[test]
    fn the_final_dot_may_be_missing() {
        assert_eq!(Name::parse("a.example").unwrap().as_wire(), b"\x01a\x07example\x00");
        assert_eq!(Name::parse("a.example.").unwrap().as_wire(), b"\x01a\x07example\x00");
        assert!(Name::parse(".").unwrap().is_root());
    }

    #[test]
    fn escapes_are_written_as_miekg_dns_writes_them() {
        for (text, written) in [
            (r"sp\032ace.example", r"sp\ ace.example."),
            (r"do\.t.example", r"do\.t.example."),
            (r"a\\b.", r"a\\b."),
            (r"a@b\;c\(d\)e.", r"a\@b\;c\(d\)e."),
            ("quo\"te'.", "quo\\\"te\\'."),
            (r"\000\009\127\255.", r"\000\009\127\255."),
            ("b\u{fc}cher.", r"b\195\188cher."),
            ("_dns._udp.*.example", "_dns._udp.*.example."),
            (r"\097\.\065.", r"a\.A."),
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!(name.to_string(), written);
            assert_eq!(Name::parse(written).unwrap().as_wire(), name.as_wire(), "{written}");
        }
    }

    #[test]
    fn malformed_names_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", NameError::EmptyLabel),
            ("..", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            (r"a\", NameError::BadEscape),
            (r"a\256", NameError::BadEscape),
            (r"a\25", NameError::BadEscape),
            (r"a\2x5", NameError::BadEscape),
        ] {
            assert_eq!(Name::parse(text).unwrap_err(), reason, "{text}");
        }
        assert_eq!(Name::parse(&"x".repeat(64)).unwrap_err(), NameError::LabelTooLong(64));
        assert!(Name::parse(&"x".repeat(63)).is_ok());
        let long = format!("{0}.{0}.{0}.{1}", "x".repeat(63), "y".repeat(62));
        assert_eq!(Name::parse(&long).unwrap_err(), NameError::TooLong);
    }
}
