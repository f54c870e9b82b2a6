//! Messages for the tests of this module, put together octet by octet.

use super::{Class, Edit, LowerName, Name, Query, Rcode, RecordType, Section};

/// The question `example. A IN`; its name stands at 12.
pub(super) const QUESTION: &[u8] = b"\x07example\x00\x00\x01\x00\x01";
/// Offset after it.
pub(super) const QUESTION_END: usize = 12 + QUESTION.len();
/// A pointer to its name.
pub(super) const TO_QUESTION: &[u8] = b"\xc0\x0c";

/// An OPT record with these TTL octets (extended rcode, version, flags) and no options.
pub(super) fn opt(ttl: u32) -> (Section, Vec<u8>) {
    (Section::Additional, [&[0, 0, 41, 4, 208][..], &ttl.to_be_bytes(), &[0, 0]].concat())
}

/// A record of class IN; `owner` in wire form, pointers allowed.
pub(super) fn record(section: Section, owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) -> (Section, Vec<u8>) {
    let class = Class::IN.0.to_be_bytes();
    let length = (data.len() as u16).to_be_bytes();
    (section, [owner, &rtype.to_be_bytes(), &class, &ttl.to_be_bytes(), &length, data].concat())
}

/// An address record of the question's name.
pub(super) fn address(section: Section, ttl: u32, last: u8) -> (Section, Vec<u8>) {
    record(section, TO_QUESTION, RecordType::A.0, ttl, &[192, 0, 2, last])
}

/// An answer to [`QUESTION`], whose sections must come in order.
pub(super) fn answer(flags: u16, records: &[(Section, Vec<u8>)]) -> Vec<u8> {
    let count = |section| (records.iter().filter(|(other, _)| *other == section).count() as u16).to_be_bytes();
    let mut message = [&[0x12, 0x34][..], &flags.to_be_bytes(), &[0, 1]].concat();
    for section in Section::ALL {
        message.extend_from_slice(&count(section));
    }
    message.extend_from_slice(QUESTION);
    records.iter().for_each(|(_, octets)| message.extend_from_slice(octets));
    message
}

/// A query with ID 0xabcd for A records of `name`; with OPT (DO as told) if `opt` is given.
pub(super) fn query(name: &str, flags: u16, opt: Option<bool>) -> (Query, Vec<u8>) {
    let [high, low] = flags.to_be_bytes();
    let name = Name::parse(name).unwrap();
    let mut wire = [&[0xab, 0xcd, high, low, 0, 1, 0, 0, 0, 0, 0, opt.is_some().into()], name.as_wire()].concat();
    wire.extend_from_slice(&[0, 1, 0, 1]);
    if let Some(dnssec_ok) = opt {
        wire.extend_from_slice(&super::opt::encode(1400, 0, dnssec_ok));
    }
    (Query::read(&wire).unwrap(), wire)
}

/// `section owner ttl type length-of-data` of each record of a message that [`super::Response::read`] accepts.
pub(super) fn listing(wire: &[u8]) -> Vec<String> {
    let response = super::Response::read(wire).unwrap();
    let line = |record: super::Record<'_>| {
        format!("{:?} {} {} {} {}", record.section, record.owner(), record.ttl, record.rtype, record.rdata().len())
    };
    response.records().map(line).collect()
}

/// Each A record becomes an AAAA record, valid for 9 seconds.
pub(super) struct Mapped;

impl Mapped {
    /// What becomes of an address.
    pub(super) fn address([.., last]: [u8; 4]) -> [u8; 16] {
        [last; 16]
    }
}

impl Edit for Mapped {
    fn owner(&self, _name: &LowerName) -> Option<LowerName> {
        None
    }
    fn value(&self, _name: &LowerName) -> Option<LowerName> {
        None
    }
    fn ttl(&self, seconds: u32) -> u32 {
        seconds
    }
    fn address(&self, _seconds: u32, address: [u8; 4]) -> Option<(u32, [u8; 16])> {
        Some((9, Self::address(address)))
    }
    fn rcode(&self, rcode: Rcode) -> Rcode {
        rcode
    }
}
