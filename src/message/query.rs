//! A client's query, read from its datagram without copying anything but the lower-cased name.

use super::{Class, LowerName, Rcode, RecordType, WireError};

/// The header (RFC 1035 section 4.1.1): `flags` is the second 16-bit word as it stood on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: u16,
    pub flags: u16,
}

impl Header {
    pub fn is_response(self) -> bool {
        self.flags & 0x8000 != 0
    }
    pub fn opcode(self) -> u8 {
        (self.flags >> 11) as u8 & 0x0f
    }
    pub fn recursion_desired(self) -> bool {
        self.flags & 0x0100 != 0
    }
    pub fn authentic_data(self) -> bool {
        self.flags & 0x0020 != 0
    }
    pub fn checking_disabled(self) -> bool {
        self.flags & 0x0010 != 0
    }
}

/// What a query's OPT record says (RFC 6891 section 6.1). Its options begin at `options` of the message: (offset, length).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The requestor's UDP payload size in octets, as sent (may be below 512).
    pub udp_size: u16,
    pub dnssec_ok: bool,
    pub version: u8,
    pub options: (u16, u16),
}

/// A well-formed query with exactly one question. Holds facts and offsets; the octets stay in the datagram.
#[derive(Clone)]
pub struct Query {
    pub header: Header,
    pub name: LowerName,
    pub qtype: RecordType,
    pub qclass: Class,
    /// Offset just after the question section; the question begins at 12.
    pub question_end: u16,
    pub edns: Option<Edns>,
}

/// What to do with octets that are not a query we can answer.
pub enum Rejection {
    /// Say nothing: shorter than a header, or the response bit is set.
    Drop,
    /// Answer with this code and no question (malformed: FORMERR; an opcode other than QUERY: NOTIMP), header only.
    Answer { id: u16, flags: u16, rcode: Rcode, why: WireError },
    /// Answer BADVERS with an OPT record and the question (RFC 6891 section 6.1.3).
    BadVersion(Box<Query>),
}

impl Query {
    /// Reads one message from a client: header, the question (no compression needed, but a pointer is malformed there), and
    /// every record after it, to find the OPT record. Never panics, whatever the octets.
    pub fn read(wire: &[u8]) -> Result<Self, Rejection> {
        todo!()
    }
    /// The question section's octets, case as the client wrote it.
    pub fn question<'a>(&self, wire: &'a [u8]) -> &'a [u8] {
        &wire[12..self.question_end as usize]
    }
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }
    /// Octets a UDP answer may have: 512, or what EDNS offers if that is more (RFC 6891 section 6.2.3).
    pub fn udp_limit(&self) -> u16 {
        self.edns.map_or(512, |edns| edns.udp_size.max(512))
    }
    /// The query to send upstream: the client's RD, AD and CD, its question, and, where the client sent OPT, an OPT with
    /// `udp_size`, its DO bit and its end-to-end options (hop-by-hop ones left out: cookie, keepalive, padding; RFC 7873,
    /// RFC 7828, RFC 7830). ID is 0; the sender sets it.
    pub fn to_upstream(&self, wire: &[u8], udp_size: u16) -> Vec<u8> {
        todo!()
    }
    /// A query made by us: `name` in wire form, class IN, RD as told, no EDNS. For health checks and probes.
    pub fn compose(id: u16, name: &[u8], qtype: RecordType, recursion_desired: bool) -> Vec<u8> {
        todo!()
    }
}
