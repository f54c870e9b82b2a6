//! Names as text: master-file escapes (RFC 1035 section 5.1), written as miekg/dns writes them.

use super::wire_reader::{MAX_NAME_LENGTH, Suffixes};
use smallvec::SmallVec;
use std::fmt;

/// Octets of the longest name that is kept without the heap: most of a cluster's.
pub(super) const INLINE: usize = 64;

/// Why a text is not a domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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

fn finish_label(wire: &mut SmallVec<[u8; INLINE]>, label: &mut SmallVec<[u8; 64]>) -> Result<(), NameError> {
    match label.len() {
        0 => return Err(NameError::EmptyLabel),
        length @ 1..=63 => wire.push(length as u8),
        length => return Err(NameError::LabelTooLong(length)),
    }
    wire.extend_from_slice(label);
    label.clear();
    Ok(())
}

/// Writes a name in uncompressed wire form as absolute text.
pub(super) fn write(wire: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write;
    if wire.len() <= 1 {
        return f.write_char('.');
    }
    for suffix in Suffixes(wire) {
        let Some((length, rest)) = suffix.split_first() else { break };
        for &octet in rest.iter().take(usize::from(*length)) {
            match octet {
                b'.' | b' ' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' | b'\\' => write!(f, "\\{}", char::from(octet))?,
                b'!'..=b'~' => f.write_char(char::from(octet))?,
                _ => write!(f, "\\{octet:03}")?,
            }
        }
        if *length > 0 {
            f.write_char('.')?;
        }
    }
    Ok(())
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
