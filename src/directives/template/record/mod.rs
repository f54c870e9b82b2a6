//! Parses a record's text, as a zone file has it (RFC 1035 section 5.1), into wire form. What may be left out is what
//! the reference's reader (dns.NewRR of miekg/dns) lets be: the TTL is then an hour, the class IN; names without a
//! final dot are complete.

mod digits;
mod fields;
mod service;
mod words;

use crate::message::{Class, Name, RecordType};
use fields::Fields;
use std::collections::HashMap;
use std::sync::LazyLock;
use words::Word;

/// Seconds, where a record says none.
const DEFAULT_TTL: u32 = 3600;

/// Why a text is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("there is no record in it; write `NAME TTL CLASS TYPE DATA`")]
    Empty,
    #[error("a quote or parenthesis is not closed")]
    Unclosed,
    #[error("`{name}` is no domain name: {why}")]
    Name { name: String, why: String },
    #[error("it ends before the record's type; write `NAME TTL CLASS TYPE DATA`")]
    NoType,
    #[error("`{0}` is no record type, class or TTL; write `NAME TTL CLASS TYPE DATA`")]
    Type(String),
    #[error("data of type {0} is read in the generic form alone; write `\\# LENGTH HEX` (RFC 3597 section 5)")]
    NoForm(RecordType),
    #[error("the {what} of a record of type {rtype} is missing")]
    Missing { rtype: RecordType, what: &'static str },
    #[error("`{text}` is not {what} of a record of type {rtype}")]
    Data { rtype: RecordType, what: &'static str, text: String },
    #[error("`{0}` stands after the data")]
    Rest(String),
    #[error("the data is longer than 65,535 octets")]
    TooLong,
}

/// Enough of a text to recognise it.
fn clip(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The first record of a text in wire form, names written out.
pub(super) fn read(text: &str) -> Result<(RecordType, Vec<u8>), RecordError> {
    let words = words::split(text)?;
    let mut words = words.iter();
    let owner = name(words.next().ok_or(RecordError::Empty)?)?;
    let (mut ttl, mut class) = (None, None);
    let rtype = loop {
        let word = words.next().ok_or(RecordError::NoType)?;
        if ttl.is_none()
            && let Some(seconds) = period(&word.text)
        {
            ttl = Some(seconds);
        } else if class.is_none()
            && let Some(found) = class_of(&word.text)
        {
            class = Some(found);
        } else {
            break type_of(&word.text).ok_or_else(|| RecordError::Type(clip(&word.text)))?;
        }
    };
    let data = data(rtype, words.as_slice())?;
    let mut wire = owner.as_wire().to_vec();
    wire.extend_from_slice(&rtype.0.to_be_bytes());
    wire.extend_from_slice(&class.unwrap_or(Class::IN).0.to_be_bytes());
    wire.extend_from_slice(&ttl.unwrap_or(DEFAULT_TTL).to_be_bytes());
    wire.extend_from_slice(&u16::try_from(data.len()).map_err(|_| RecordError::TooLong)?.to_be_bytes());
    wire.extend_from_slice(&data);
    Ok((rtype, wire))
}

/// A domain name; `@` is the root, which names are complete under.
fn name(word: &Word) -> Result<Name, RecordError> {
    let text = if word.text == "@" { "." } else { word.text.as_str() };
    Name::parse(text).map_err(|why| RecordError::Name { name: clip(&word.text), why: why.to_string() })
}

fn data(rtype: RecordType, words: &[Word]) -> Result<Vec<u8>, RecordError> {
    let mut fields = Fields::new(rtype, words);
    match words.split_first() {
        Some((first, _)) if first.text == "\\#" => fields.generic()?,
        _ => fields.of_type()?,
    }
    fields.finish()
}

/// Seconds: digits, or digits with units (`1h30m`), as in zone files.
fn period(text: &str) -> Option<u32> {
    let (mut whole, mut part, mut has_digit) = (0_u32, 0_u32, false);
    for letter in text.chars() {
        if let Some(digit) = letter.to_digit(10) {
            part = part.checked_mul(10)?.checked_add(digit)?;
            has_digit = true;
            continue;
        }
        let unit = match letter.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        if !has_digit {
            return None;
        }
        whole = whole.checked_add(part.checked_mul(unit)?)?;
        (part, has_digit) = (0, false);
    }
    let ends_in_unit = !has_digit && whole > 0 || text.ends_with(|letter: char| letter.is_ascii_alphabetic());
    (has_digit || ends_in_unit && !text.is_empty()).then(|| whole.checked_add(part)).flatten()
}

fn class_of(text: &str) -> Option<Class> {
    Class::from_mnemonic(text).or_else(|| numbered(text, "CLASS").map(Class))
}

fn type_of(text: &str) -> Option<RecordType> {
    // All types are looked through for each otherwise.
    static TYPES: LazyLock<HashMap<&'static str, u16>> =
        LazyLock::new(|| (0..=u16::MAX).filter_map(|number| Some((RecordType(number).mnemonic()?, number))).collect());
    let upper = text.to_ascii_uppercase();
    TYPES.get(upper.as_str()).copied().or_else(|| numbered(text, "TYPE")).map(RecordType)
}

/// `TYPE65` or `CLASS3` (RFC 3597 section 5).
fn numbered(text: &str, prefix: &str) -> Option<u16> {
    let (head, number) = text.split_at_checked(prefix.len())?;
    let is_number = !number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit());
    number.parse().ok().filter(|_| is_number && head.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests;
