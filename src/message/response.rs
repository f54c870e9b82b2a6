//! A whole answer in wire form, checked once when it arrives, then copied and patched for each client.

use super::{Class, Name, Query, Rcode, RecordType, WireError};

/// The three sections that hold records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Answer,
    Authority,
    Additional,
}

/// One record of a [`Response`], as offsets into its octets.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub section: Section,
    pub message: &'a [u8],
    pub owner: usize,
    pub rtype: RecordType,
    pub class: Class,
    pub ttl: u32,
    pub rdata: (usize, usize),
}

impl Record<'_> {
    pub fn owner(&self) -> Name {
        todo!()
    }
    pub fn rdata(&self) -> &[u8] {
        &self.message[self.rdata.0..self.rdata.0 + self.rdata.1]
    }
    /// MINIMUM of an SOA record (RFC 1035 section 3.3.13, RFC 2308 section 4); `None` for other types.
    pub fn soa_minimum(&self) -> Option<u32> {
        todo!()
    }
}

/// What TTLs the copy for a client carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlRule {
    /// As stored.
    Keep,
    /// Every record (but OPT, which is not stored) gets this many seconds.
    Set(u32),
}

/// How a reply is shaped for one client.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    pub ttl: TtlRule,
    /// Octets the reply may have; records that do not fit are left out and TC is set (RFC 2181 section 9).
    pub limit: usize,
    /// The UDP payload size we state in our OPT record.
    pub udp_size: u16,
}

/// A validated answer: one question, every name and record within bounds, OPT taken out (its DO bit and extended rcode
/// remembered), and the offset of every TTL known, so that a client's copy needs no parsing. One block of octets.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    block: Box<[u8]>,
}

impl Response {
    /// Checks and takes over an upstream's answer.
    pub fn read(wire: &[u8]) -> Result<Self, WireError> {
        todo!()
    }
    /// An answer to `query` (whose octets are `wire`) with no records: rcode, RD and CD copied, RA clear.
    pub fn empty(query: &Query, wire: &[u8], rcode: Rcode) -> Self {
        todo!()
    }
    /// From records made by a directive. The question is that of the query.
    pub fn from_records(query: &Query, wire: &[u8], rcode: Rcode, records: &[(Section, hickory_proto::rr::Record)]) -> Self {
        todo!()
    }
    /// Decodes all of it, for directives that change records.
    pub fn to_message(&self) -> Result<hickory_proto::op::Message, hickory_proto::ProtoError> {
        todo!()
    }
    /// The DNS message, OPT left out, ID 0.
    pub fn wire(&self) -> &[u8] {
        todo!()
    }
    pub fn rcode(&self) -> Rcode {
        todo!()
    }
    pub fn is_truncated(&self) -> bool {
        todo!()
    }
    pub fn is_authoritative(&self) -> bool {
        todo!()
    }
    /// Sets or clears one header flag bit of the second word (AA 0x0400, AD 0x0020, RA 0x0080, ...).
    pub fn set_flag(&mut self, bit: u16, on: bool) {
        todo!()
    }
    /// Lower-cased question name, type and class; what RFC 5452 section 9.1 wants compared.
    pub fn question_matches(&self, name: &[u8], qtype: RecordType, qclass: Class) -> bool {
        todo!()
    }
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        std::iter::empty()
    }
    /// Sets every TTL.
    pub fn set_ttls(&mut self, seconds: u32) {
        todo!()
    }
    /// Octets this takes on the heap.
    pub fn heap_size(&self) -> usize {
        self.block.len()
    }
    /// Appends the reply for one client: the octets copied; ID, RD, CD, question case and TTLs patched; AD kept only if the
    /// client set DO or AD (RFC 6840 section 5.7); an OPT record if, and only if, the client sent one; cut to the limit.
    /// Allocates nothing when `out` has room and the answer fits.
    pub fn write(&self, query: &Query, wire: &[u8], reply: Reply, out: &mut Vec<u8>) {
        todo!()
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({}, {} octets)", self.rcode(), self.wire().len())
    }
}
