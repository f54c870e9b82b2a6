//! Records, types and response codes as text, in the presentation form of RFC 1035 section 5.1 and RFC 3597 section 5.

use hickory_proto::op::Edns;
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::str::FromStr;

/// Mnemonics of response codes, extended ones included (IANA DNS RCODEs).
const RCODES: &[(&str, u16)] = &[
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
    ("YXDOMAIN", 6),
    ("YXRRSET", 7),
    ("NXRRSET", 8),
    ("NOTAUTH", 9),
    ("NOTZONE", 10),
    ("BADVERS", 16),
];

/// The number of a response code's mnemonic.
pub fn parse_rcode(text: &str) -> u16 {
    RCODES.iter().find(|(name, _)| *name == text).unwrap_or_else(|| panic!("unknown response code {text:?}")).1
}

/// The mnemonic of a response code.
pub fn format_rcode(code: u16) -> String {
    RCODES
        .iter()
        .find(|(_, number)| *number == code)
        .map_or_else(|| format!("RCODE{code}"), |(name, _)| (*name).to_owned())
}

/// A type by its mnemonic or as `TYPE65400`.
pub fn parse_type(text: &str) -> RecordType {
    match text.strip_prefix("TYPE").and_then(|number| number.parse::<u16>().ok()) {
        Some(number) => RecordType::from(number),
        None => RecordType::from_str(text).unwrap_or_else(|e| panic!("record type {text:?}: {e}")),
    }
}

/// A type's mnemonic, or `TYPE65400`.
pub fn format_type(rtype: RecordType) -> String {
    match rtype {
        RecordType::Unknown(number) => format!("TYPE{number}"),
        known => known.to_string(),
    }
}

/// An absolute name; its case is kept. `\.` and `\032` stand for an octet (RFC 1035 section 5.1), which hickory's own
/// reader takes in part only.
pub fn parse_name(text: &str) -> Name {
    let mut labels: Vec<Vec<u8>> = vec![Vec::new()];
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b'.' => {
                labels.push(Vec::new());
                continue;
            }
            b'\\' => unescape(&mut octets).unwrap_or_else(|| panic!("name {text:?} has a malformed escape")),
            plain => plain,
        };
        labels.last_mut().expect("there is always a last label").push(octet);
    }
    labels.retain(|label| !label.is_empty());
    let labels = labels.iter().map(Vec::as_slice);
    let mut name = Name::from_labels(labels).unwrap_or_else(|e| panic!("name {text:?}: {e}"));
    name.set_fqdn(true);
    name
}

/// What follows a backslash: three digits, or the octet itself.
fn unescape(octets: &mut std::str::Bytes<'_>) -> Option<u8> {
    let first = octets.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let digits = [first, octets.next()?, octets.next()?];
    str::from_utf8(&digits).ok()?.parse().ok()
}

/// A class by its mnemonic.
pub fn parse_class(text: &str) -> DNSClass {
    DNSClass::from_str(text).unwrap_or_else(|e| panic!("class {text:?}: {e}"))
}

/// A record and its TTL; `None` for a TTL written `?`.
pub fn parse_record(text: &str) -> (Record, Option<u32>) {
    let mut fields = text.splitn(5, ' ');
    let mut field = || fields.next().unwrap_or_else(|| panic!("record {text:?} lacks a field"));
    let (owner, ttl, class, rtype) = (parse_name(field()), field(), parse_class(field()), parse_type(field()));
    let ttl = (ttl != "?").then(|| ttl.parse().unwrap_or_else(|e| panic!("TTL of {text:?}: {e}")));
    let mut record = Record::from_rdata(owner, ttl.unwrap_or(0), parse_rdata(rtype, field()));
    record.dns_class = class;
    (record, ttl)
}

/// RDATA of `rtype`; `\# 3 010203` for types without a form of their own.
fn parse_rdata(rtype: RecordType, text: &str) -> RData {
    match text.strip_prefix("\\# ") {
        Some(generic) => {
            let (length, hex) = generic.split_once(' ').unwrap_or((generic, ""));
            let octets = parse_hex(hex);
            assert_eq!(length.parse(), Ok(octets.len()), "the length in {text:?}");
            RData::Unknown { code: rtype, rdata: NULL::with(octets) }
        }
        None => RData::try_from_str(rtype, text).unwrap_or_else(|e| panic!("{rtype} data {text:?}: {e}")),
    }
}

/// Octets from hexadecimal digits.
pub fn parse_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|octet| !octet.is_ascii_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
        pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or_else(|| panic!("hexadecimal {text:?}"))
    });
    pairs.collect()
}

/// The EDNS options of a message, `65518=61626364` each, sorted.
pub fn format_options(edns: &Edns) -> Vec<String> {
    let mut out: Vec<String> = edns
        .options()
        .as_ref()
        .iter()
        .map(|(code, option)| {
            let data = Vec::try_from(option).expect("an option that was read can be written");
            format!("{}={}", u16::from(*code), format_hex(&data))
        })
        .collect();
    out.sort_unstable();
    out
}

fn format_hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A record on one line.
pub fn format_record(record: &Record) -> String {
    let data = match &record.data {
        RData::TXT(txt) => {
            let strings = txt.txt_data.iter().map(|string| format!("\"{}\"", string.escape_ascii()));
            strings.collect::<Vec<_>>().join(" ")
        }
        RData::Unknown { rdata, .. } => {
            format!("\\# {} {}", rdata.anything.len(), format_hex(&rdata.anything))
        }
        other => other.to_string(),
    };
    format!("{} {} {} {} {data}", record.name, record.ttl, record.dns_class, format_type(record.record_type()))
}
