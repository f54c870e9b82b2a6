//! A client's query, read from its datagram without copying anything but the lower-cased name.

use super::octets::{HEADER_LENGTH, MAX_MESSAGE_LENGTH, MAX_NAME_LENGTH, u16_at, walk_name};
use super::opt::{self, OPT_LENGTH, Options};
use super::{Class, LowerName, Rcode, RecordType, Rejection, WireError};

/// The response bit of the header's second word.
pub(super) const QR: u16 = 0x8000;
/// The opcode's bits.
pub(super) const OPCODE: u16 = 0x7800;
pub(super) const AA: u16 = 0x0400;
pub(super) const TC: u16 = 0x0200;
pub(super) const RA: u16 = 0x0080;
pub(super) const RD: u16 = 0x0100;
pub(super) const AD: u16 = 0x0020;
pub(super) const CD: u16 = 0x0010;

/// The header (RFC 1035 section 4.1.1): `flags` is the second 16-bit word as it stood on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: u16,
    pub flags: u16,
}

impl Header {
    pub fn is_response(self) -> bool {
        self.flags & QR != 0
    }
    pub fn opcode(self) -> u8 {
        (self.flags >> 11) as u8 & 0x0f
    }
    pub fn recursion_desired(self) -> bool {
        self.flags & RD != 0
    }
    pub fn authentic_data(self) -> bool {
        self.flags & AD != 0
    }
    pub fn checking_disabled(self) -> bool {
        self.flags & CD != 0
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
#[derive(Clone, Debug)]
pub struct Query {
    pub header: Header,
    pub name: LowerName,
    pub qtype: RecordType,
    pub qclass: Class,
    /// Offset just after the question section; the question begins at 12.
    pub question_end: u16,
    pub edns: Option<Edns>,
}

impl Query {
    /// Reads one message from a client: header, the question (no compression needed, but a pointer is malformed there), and
    /// every record after it, to find the OPT record. Octets after the last record are ignored. Never panics, whatever the octets.
    ///
    /// As in the reference, more than one record in the answer or authority section or two in the additional one (OPT and TSIG)
    /// is malformed.
    #[inline]
    pub fn read(wire: &[u8]) -> Result<Self, Rejection> {
        let Some(head) = wire.first_chunk::<HEADER_LENGTH>() else { return Err(Rejection::Drop) };
        let word = |index: usize| u16::from_be_bytes([head[2 * index], head[2 * index + 1]]);
        let header = Header { id: word(0), flags: word(1) };
        if header.is_response() {
            return Err(Rejection::Drop);
        }
        let answer = |rcode, why| Rejection::Answer { id: header.id, flags: header.flags, rcode, why };
        if header.opcode() != 0 {
            return Err(answer(Rcode::NOTIMP, WireError::Opcode(header.opcode())));
        }
        match read_body(wire, header, [word(2), word(3), word(4), word(5)]) {
            Ok(query) if query.edns.is_some_and(|edns| edns.version > 0) => Err(Rejection::BadVersion(Box::new(query))),
            Ok(query) => Ok(query),
            Err(why) => Err(answer(Rcode::FORMERR, why)),
        }
    }
    /// The question section's octets, case as the client wrote it. `wire` is what the query was read from.
    #[inline]
    pub fn question<'a>(&self, wire: &'a [u8]) -> &'a [u8] {
        wire.get(HEADER_LENGTH..usize::from(self.question_end)).unwrap_or_default()
    }
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }
    /// Octets a UDP answer may have: 512, or what EDNS offers if that is more (RFC 6891 section 6.2.3).
    pub fn udp_limit(&self) -> u16 {
        self.edns.map_or(512, |edns| edns.udp_size.max(512))
    }
    /// The query to send upstream: the client's RD, AD and CD, its question, and, where the client sent OPT, an OPT with
    /// `udp_size`, its DO bit and its end-to-end options (hop-by-hop ones left out: NSID, cookie, keepalive, padding; RFC 5001,
    /// RFC 7873, RFC 7828, RFC 7830). ID is 0; the sender sets it.
    pub fn to_upstream(&self, wire: &[u8], udp_size: u16) -> Vec<u8> {
        let question = self.question(wire);
        let options = self.edns.map_or(0, |edns| usize::from(edns.options.1));
        let mut message = Vec::with_capacity(HEADER_LENGTH + question.len() + OPT_LENGTH + options);
        let [high, low] = (self.header.flags & (RD | AD | CD)).to_be_bytes();
        message.extend_from_slice(&[0, 0, high, low, 0, 1, 0, 0, 0, 0, 0, self.edns.is_some().into()]);
        message.extend_from_slice(question);
        if let Some(edns) = self.edns {
            let start = message.len() + OPT_LENGTH;
            message.extend_from_slice(&opt::encode(udp_size, 0, edns.dnssec_ok));
            let (offset, length) = (usize::from(edns.options.0), usize::from(edns.options.1));
            for (code, option) in Options(wire.get(offset..offset + length).unwrap_or_default()) {
                if !opt::is_hop_by_hop(code) {
                    message.extend_from_slice(option);
                }
            }
            let length = (message.len() - start) as u16;
            message[start - 2..start].copy_from_slice(&length.to_be_bytes());
        }
        message
    }
    /// A query made by us: `name` in wire form, class IN, RD as told, no EDNS. For health checks and probes.
    pub fn compose(id: u16, name: &[u8], qtype: RecordType, recursion_desired: bool) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER_LENGTH + name.len() + 4);
        message.extend_from_slice(&id.to_be_bytes());
        message.extend_from_slice(&[recursion_desired.into(), 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(name);
        message.extend_from_slice(&qtype.0.to_be_bytes());
        message.extend_from_slice(&Class::IN.0.to_be_bytes());
        message
    }
}

/// Reads what follows the header; `counts` are its four.
#[inline]
fn read_body(wire: &[u8], header: Header, counts: [u16; 4]) -> Result<Query, WireError> {
    let [questions, answers, authorities, additionals] = counts;
    if questions != 1 {
        return Err(WireError::QuestionCount(questions));
    }
    if answers > 1 || authorities > 1 || additionals > 2 {
        return Err(WireError::RecordCount(u32::from(answers) + u32::from(authorities) + u32::from(additionals)));
    }
    if wire.len() > MAX_MESSAGE_LENGTH {
        return Err(WireError::TooLong);
    }
    let name_end = question_name_end(wire)?;
    let qtype = RecordType(u16_at(wire, name_end)?);
    let qclass = Class(u16_at(wire, name_end + 2)?);
    let question_end = name_end + 4;
    let name = LowerName::from_wire(wire.get(HEADER_LENGTH..name_end).unwrap_or_default());
    let edns = if answers | authorities | additionals == 0 {
        None
    } else {
        find_edns(wire, question_end, answers + authorities, additionals)?
    };
    Ok(Query { header, name, qtype, qclass, question_end: question_end as u16, edns })
}

/// Offset after the question's name. Nothing precedes it that a pointer could lead to, so none is allowed.
#[inline]
pub(super) fn question_name_end(wire: &[u8]) -> Result<usize, WireError> {
    let mut at = HEADER_LENGTH;
    loop {
        match wire.get(at) {
            Some(0) => return Ok(at + 1),
            Some(length @ 1..=63) => at += usize::from(*length) + 1,
            Some(_) => return Err(WireError::BadName(at)),
            None => return Err(WireError::Short(at)),
        }
        if at >= HEADER_LENGTH + MAX_NAME_LENGTH {
            return Err(WireError::BadName(at));
        }
    }
}

/// The OPT record among the records after the question, if there is one; every record must lie within the message.
fn find_edns(wire: &[u8], question_end: usize, before_additional: u16, additional: u16) -> Result<Option<Edns>, WireError> {
    let mut edns = None;
    let mut at = question_end;
    for index in 0..before_additional + additional {
        let owner = at;
        let fixed = if wire.get(at) == Some(&0) { at + 1 } else { walk_name(wire, at, |_| ())? };
        let Some(&[type_high, type_low, size_high, size_low, _, version, flags, _, length_high, length_low]) =
            wire.get(fixed..).and_then(<[u8]>::first_chunk)
        else {
            return Err(WireError::Short(fixed));
        };
        let data = fixed + 10;
        let length = u16::from_be_bytes([length_high, length_low]);
        at = data + usize::from(length);
        let Some(options) = wire.get(data..at) else { return Err(WireError::Short(data)) };
        if u16::from_be_bytes([type_high, type_low]) != RecordType::OPT.0 {
            continue;
        }
        if edns.is_some() || index < before_additional || fixed != owner + 1 || !opt::are_well_framed(options) {
            return Err(WireError::BadRecord(owner));
        }
        edns = Some(Edns {
            udp_size: u16::from_be_bytes([size_high, size_low]),
            dnssec_ok: flags & 0x80 != 0,
            version,
            options: (data as u16, length),
        });
    }
    Ok(edns)
}
