//! The data of a record, field by field.

use super::digits::{base64, hexadecimal};
use super::words::Word;
use super::{RecordError, clip, name, period, service};
use crate::message::RecordType;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What a field holds.
#[derive(Clone, Copy)]
enum Field {
    U8,
    U16,
    U32,
    /// Seconds, units allowed.
    Period,
    Name,
    /// A text with its length before it.
    Text,
    /// One or more of these.
    Texts,
    /// A text to the end of the data.
    Octets,
    V4,
    V6,
    /// The rest of the words, joined.
    Hex,
    Base64,
}

/// The fields of a type; `None` where we know no form but the generic one.
fn of(rtype: RecordType) -> Option<&'static [Field]> {
    use Field::*;
    Some(match rtype.mnemonic()? {
        "A" => &[V4],
        "AAAA" => &[V6],
        "NS" | "CNAME" | "PTR" | "DNAME" | "MD" | "MF" | "MB" | "MG" | "MR" => &[Name],
        "SOA" => &[Name, Name, U32, Period, Period, Period, Period],
        "MX" | "AFSDB" | "RT" | "KX" => &[U16, Name],
        "MINFO" | "RP" => &[Name, Name],
        "TXT" | "SPF" | "AVC" | "NINFO" => &[Texts],
        "HINFO" => &[Text, Text],
        "SRV" => &[U16, U16, U16, Name],
        "NAPTR" => &[U16, U16, Text, Text, Text, Name],
        "URI" => &[U16, U16, Octets],
        "CAA" => &[U8, Text, Octets],
        "DS" | "CDS" | "DLV" | "TA" => &[U16, U8, U8, Hex],
        "DNSKEY" | "CDNSKEY" => &[U16, U8, U8, Base64],
        "SSHFP" => &[U8, U8, Hex],
        "TLSA" | "SMIMEA" => &[U8, U8, U8, Hex],
        "OPENPGPKEY" | "DHCID" => &[Base64],
        _ => return None,
    })
}

/// Reads words into data.
pub(super) struct Fields<'w> {
    rtype: RecordType,
    words: std::slice::Iter<'w, Word>,
    data: Vec<u8>,
}

impl<'w> Fields<'w> {
    pub(super) fn new(rtype: RecordType, words: &'w [Word]) -> Self {
        Self { rtype, words: words.iter(), data: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>, RecordError> {
        match self.words.next() {
            Some(word) => Err(RecordError::Rest(clip(&word.text))),
            None => Ok(self.data),
        }
    }

    /// The data as its type has it.
    pub(super) fn of_type(&mut self) -> Result<(), RecordError> {
        if let "SVCB" | "HTTPS" = self.rtype.mnemonic().unwrap_or_default() {
            self.field(Field::U16)?;
            self.field(Field::Name)?;
            let words = std::mem::take(&mut self.words);
            self.data.extend(service::parameters(self.rtype, words.as_slice())?);
            return Ok(());
        }
        of(self.rtype).ok_or(RecordError::NoForm(self.rtype))?.iter().try_for_each(|field| self.field(*field))
    }

    /// `\# LENGTH HEX` (RFC 3597 section 5).
    pub(super) fn generic(&mut self) -> Result<(), RecordError> {
        self.words.next();
        let length: u16 = self.number("the length")?;
        if length > 0 {
            self.field(Field::Hex)?;
        }
        match self.data.len() == usize::from(length) {
            true => Ok(()),
            false => self.wrong("the length that it has", &length.to_string()),
        }
    }

    fn wrong<T>(&self, what: &'static str, text: &str) -> Result<T, RecordError> {
        Err(RecordError::Data { rtype: self.rtype, what, text: clip(text) })
    }

    fn word(&mut self, what: &'static str) -> Result<&'w Word, RecordError> {
        self.words.next().ok_or(RecordError::Missing { rtype: self.rtype, what })
    }

    fn number<T: FromStr>(&mut self, what: &'static str) -> Result<T, RecordError> {
        let word = self.word(what)?;
        let is_number = word.text.bytes().all(|octet| octet.is_ascii_digit());
        match word.text.parse() {
            Ok(number) if is_number => Ok(number),
            _ => self.wrong(what, &word.text),
        }
    }

    fn field(&mut self, field: Field) -> Result<(), RecordError> {
        match field {
            Field::U8 => {
                let number: u8 = self.number("a number up to 255")?;
                self.data.push(number);
            }
            Field::U16 => {
                let number: u16 = self.number("a number up to 65535")?;
                self.data.extend_from_slice(&number.to_be_bytes());
            }
            Field::U32 => {
                let number: u32 = self.number("a number up to 4294967295")?;
                self.data.extend_from_slice(&number.to_be_bytes());
            }
            Field::Period => {
                let word = self.word("a number of seconds")?;
                match period(&word.text) {
                    Some(seconds) => self.data.extend_from_slice(&seconds.to_be_bytes()),
                    None => return self.wrong("a number of seconds", &word.text),
                }
            }
            Field::Name => {
                let name = name(self.word("name")?)?;
                self.data.extend_from_slice(name.as_wire());
            }
            Field::Text => {
                let octets = self.octets("a text")?;
                match u8::try_from(octets.len()) {
                    Ok(length) => self.data.push(length),
                    Err(_) => return self.wrong("a text of at most 255 octets", &format!("{} octets", octets.len())),
                }
                self.data.extend_from_slice(&octets);
            }
            Field::Texts => {
                let mut has_one = false;
                while !has_one || !self.words.as_slice().is_empty() {
                    let octets = self.octets("a text")?;
                    has_one = true;
                    // One that is longer becomes several, as in the reference.
                    let mut pieces: Vec<&[u8]> = octets.chunks(255).collect();
                    if pieces.is_empty() {
                        pieces.push(&[]);
                    }
                    for piece in pieces {
                        self.data.push(piece.len() as u8);
                        self.data.extend_from_slice(piece);
                    }
                }
            }
            Field::Octets => {
                let octets = self.octets("a text")?;
                self.data.extend_from_slice(&octets);
            }
            Field::V4 => {
                let address: Ipv4Addr = self.address("an IPv4 address")?;
                self.data.extend_from_slice(&address.octets());
            }
            Field::V6 => {
                let address: Ipv6Addr = self.address("an IPv6 address")?;
                self.data.extend_from_slice(&address.octets());
            }
            Field::Hex => {
                let text = self.joined("hexadecimal digits")?;
                match hexadecimal(&text) {
                    Some(octets) => self.data.extend(octets),
                    None => return self.wrong("a whole number of octets in hexadecimal digits", &text),
                }
            }
            Field::Base64 => {
                let text = self.joined("base 64 digits")?;
                match base64(&text) {
                    Some(octets) => self.data.extend(octets),
                    None => return self.wrong("octets in base 64", &text),
                }
            }
        }
        Ok(())
    }

    fn address<T: FromStr>(&mut self, what: &'static str) -> Result<T, RecordError> {
        let word = self.word(what)?;
        word.text.parse().or_else(|_| self.wrong(what, &word.text))
    }

    fn octets(&mut self, what: &'static str) -> Result<Vec<u8>, RecordError> {
        let word = self.word(what)?;
        word.octets().map_or_else(|| self.wrong(what, &word.text), Ok)
    }

    /// All words that are left; at least one.
    fn joined(&mut self, what: &'static str) -> Result<String, RecordError> {
        let mut text = self.word(what)?.text.clone();
        self.words.by_ref().for_each(|word| text.push_str(&word.text));
        Ok(text)
    }
}
