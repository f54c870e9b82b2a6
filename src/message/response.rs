//! A whole answer in wire form, checked once when it arrives, then copied and patched for each client.

use super::check::check;
use super::compose::{Composed, Composer};
use super::octets::HEADER_LENGTH;
use super::query::{AA, AD, CD, QR, RA, RD, TC};
use super::record::{Record, Section};
use super::{Class, Name, Query, Rcode, RecordType, WireError};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};

/// A validated answer: one question, every name and record within bounds, OPT taken out (its DO bit and extended rcode
/// remembered), and the offset of every TTL known, so that a client's copy needs no parsing. One block of octets.
///
/// The question is kept in lower case; each client's copy gets that client's spelling. The block: four 16-bit numbers of ours
/// (rcode, flags, number of records, end of the question), the 16-bit offset of each record's TTL, the message.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    block: Box<[u8]>,
}

/// Octets of the block before the TTL offsets.
const HEAD_LENGTH: usize = 8;
/// Bit of the block's flags: the upstream's OPT record had DO set.
const DNSSEC_OK: u16 = 1;
/// What of an upstream's header is kept; the rcode is set anew, Z cleared (RFC 1035 section 4.1.1).
const KEPT_FLAGS: u16 = AA | TC | RD | RA | AD | CD;

/// The block taken apart.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub rcode: Rcode,
    pub dnssec_ok: bool,
    pub question_end: usize,
    /// Big-endian pairs of octets, as everything in the block.
    pub ttl_offsets: &'a [[u8; 2]],
    pub message: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Lower-cased name of the question.
    #[inline]
    pub(super) fn question_name(&self) -> &'a [u8] {
        self.message.get(HEADER_LENGTH..self.question_end - 4).unwrap_or_default()
    }
    /// The header's 16-bit number `index`.
    #[inline]
    pub(super) fn header(&self, index: usize) -> u16 {
        u16_of(self.message, 2 * index)
    }
    /// Offset after the record whose TTL offset is given: TTL and length come before the data.
    #[inline]
    pub(super) fn record_end(&self, ttl_offset: [u8; 2]) -> usize {
        let ttl = usize::from(u16::from_be_bytes(ttl_offset));
        ttl + 6 + usize::from(u16_of(self.message, ttl + 4))
    }
}

/// The 16-bit number at an offset that is known to lie within.
#[inline]
fn u16_of(octets: &[u8], offset: usize) -> u16 {
    octets.get(offset..).and_then(<[u8]>::first_chunk).map_or(0, |octets| u16::from_be_bytes(*octets))
}

impl Response {
    /// Checks and takes over an upstream's answer. Names are compressed anew where the upstream wrote them out or put OPT before
    /// another record. TTLs with the top bit set become 0 (RFC 2181 section 8). Octets after the last record are dropped, and if
    /// TC is set, so is a record that the message cuts off. TSIG and SIG(0) records are kept like any other.
    ///
    /// # Errors
    /// Anything malformed; a query; an opcode other than QUERY; a number of questions other than one; two OPT records; over 4,096
    /// records; over 65,535 octets.
    pub fn read(wire: &[u8]) -> Result<Self, WireError> {
        let checked = check(wire)?;
        let mut response = if checked.keepable {
            let octets = wire.get(..checked.end).ok_or(WireError::Short(checked.end))?;
            let ttl_offsets = checked.places.iter().map(|place| place.ttl);
            Self::assemble(checked.rcode, checked.question_end, ttl_offsets, octets, checked.counts)
        } else {
            let question = wire.get(HEADER_LENGTH..checked.question_end).unwrap_or_default();
            let mut composer = Composer::new(&question.to_ascii_lowercase());
            composer.point_to_question(question);
            for record in checked.records() {
                composer.push(&record)?;
            }
            Self::from_composed(checked.rcode, checked.question_end, &composer.finish())
        };
        response.replace_header_flags(checked.flags);
        if checked.dnssec_ok {
            response.block[2..4].copy_from_slice(&DNSSEC_OK.to_be_bytes());
        }
        response.map_ttls(|ttl| if ttl > i32::MAX as u32 { 0 } else { ttl });
        Ok(response)
    }
    /// An answer to `query` (whose octets are `wire`) with no records: rcode, RD and CD copied, RA clear.
    pub fn empty(query: &Query, wire: &[u8], rcode: Rcode) -> Self {
        Self::compose(query, wire, rcode, std::iter::empty()).0
    }
    /// From records made by a directive. The question is that of the query; RD and CD are copied, RA is clear.
    ///
    /// # Errors
    /// A record that has no wire form, or too many of them for one message.
    pub fn from_records(
        query: &Query,
        wire: &[u8],
        rcode: Rcode,
        records: &[(Section, hickory_proto::rr::Record)],
    ) -> Result<Self, WireError> {
        let made = Self::empty(query, wire, rcode);
        let mut message = made.to_message().map_err(|_| WireError::Unencodable)?;
        for (section, record) in records {
            let section = match section {
                Section::Answer => &mut message.answers,
                Section::Authority => &mut message.authorities,
                Section::Additional => &mut message.additionals,
            };
            section.push(record.clone());
        }
        Self::from_message(&message)
    }
    /// Takes over an answer that a directive has changed or made. An OPT record's flags are kept, its options are not.
    ///
    /// # Errors
    /// As [`Response::read`]; and a record that has no wire form, or too many of them for one message.
    pub fn from_message(message: &Message) -> Result<Self, WireError> {
        let mut response = Self::read(&message.to_vec().map_err(|_| WireError::Unencodable)?)?;
        let records = message.answers.len() + message.authorities.len() + message.additionals.len();
        if response.parts().ttl_offsets.len() != records {
            return Err(WireError::TooLong);
        }
        response.block[..2].copy_from_slice(&u16::from(message.metadata.response_code).to_be_bytes());
        Ok(response)
    }
    /// Decodes all of it, for directives that change records.
    pub fn to_message(&self) -> Result<Message, hickory_proto::ProtoError> {
        let mut message = Message::from_vec(self.wire())?;
        message.metadata.message_type = MessageType::Response;
        message.metadata.op_code = OpCode::Query;
        message.metadata.response_code = ResponseCode::from((self.rcode().0 >> 4) as u8, (self.rcode().0 & 0x0f) as u8);
        Ok(message)
    }
    /// The DNS message, OPT left out, ID 0.
    pub fn wire(&self) -> &[u8] {
        self.parts().message
    }
    /// All 12 bits.
    pub fn rcode(&self) -> Rcode {
        self.parts().rcode
    }
    pub fn is_truncated(&self) -> bool {
        self.parts().header(1) & TC != 0
    }
    pub fn is_authoritative(&self) -> bool {
        self.parts().header(1) & AA != 0
    }
    /// DO in the upstream's OPT record.
    pub fn dnssec_ok(&self) -> bool {
        self.parts().dnssec_ok
    }
    /// Sets or clears one header flag bit of the second word (AA 0x0400, AD 0x0020, RA 0x0080, ...).
    pub fn set_flag(&mut self, bit: u16, on: bool) {
        let flags = self.parts().header(1);
        self.replace_header_flags(if on { flags | bit } else { flags & !bit });
    }
    /// Lower-cased question name.
    pub fn question_name(&self) -> Name {
        Name::read(self.wire(), HEADER_LENGTH).map_or_else(|_| Name::root(), |(name, _)| name)
    }
    pub fn question_type(&self) -> RecordType {
        let parts = self.parts();
        RecordType(u16_of(parts.message, parts.question_end - 4))
    }
    pub fn question_class(&self) -> Class {
        let parts = self.parts();
        Class(u16_of(parts.message, parts.question_end - 2))
    }
    /// Lower-cased question name, type and class; what RFC 5452 section 9.1 wants compared.
    pub fn question_matches(&self, name: &[u8], qtype: RecordType, qclass: Class) -> bool {
        self.parts().question_name() == name && self.question_type() == qtype && self.question_class() == qclass
    }
    /// Records in the answer section.
    pub fn answer_count(&self) -> usize {
        self.parts().header(3).into()
    }
    /// Records in the authority section.
    pub fn authority_count(&self) -> usize {
        self.parts().header(4).into()
    }
    /// All records, in the order of the message; OPT is not among them.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let parts = self.parts();
        let authority = self.answer_count();
        let additional = authority + self.authority_count();
        let mut owner = parts.question_end;
        parts.ttl_offsets.iter().enumerate().filter_map(move |(index, ttl_offset)| {
            let section = match index {
                _ if index < authority => Section::Answer,
                _ if index < additional => Section::Authority,
                _ => Section::Additional,
            };
            let fixed = usize::from(u16::from_be_bytes(*ttl_offset)) - 4;
            let record = Record::at(section, parts.message, owner, fixed).ok()?;
            owner = record.end();
            Some(record)
        })
    }
    /// Sets every TTL.
    pub fn set_ttls(&mut self, seconds: u32) {
        self.map_ttls(|_| seconds);
    }
    /// Octets this takes on the heap.
    pub fn heap_size(&self) -> usize {
        self.block.len()
    }

    /// The block taken apart.
    #[inline]
    pub(super) fn parts(&self) -> Parts<'_> {
        let (head, rest) = self.block.split_at(HEAD_LENGTH);
        let count = usize::from(u16_of(head, 4));
        let (offsets, message) = rest.split_at(2 * count);
        Parts {
            rcode: Rcode(u16_of(head, 0)),
            dnssec_ok: u16_of(head, 2) & DNSSEC_OK != 0,
            question_end: u16_of(head, 6).into(),
            ttl_offsets: offsets.as_chunks().0,
            message,
        }
    }

    /// An answer with the question of `query` and records from elsewhere, RD and CD of the query; false with it if not all of the
    /// records had room.
    pub(super) fn compose<'a>(
        query: &Query,
        wire: &[u8],
        rcode: Rcode,
        records: impl Iterator<Item = Record<'a>>,
    ) -> (Self, bool) {
        let spelt = query.question(wire);
        let lower: Vec<u8> = [query.name.as_wire(), &query.qtype.0.to_be_bytes()[..], &query.qclass.0.to_be_bytes()[..]].concat();
        let mut composer = Composer::new(&lower);
        composer.point_to_question(spelt);
        let whole = records.map(|record| composer.push(&record)).all(|result| result.is_ok());
        let mut response = Self::from_composed(rcode, HEADER_LENGTH + lower.len(), &composer.finish());
        response.replace_header_flags(query.header.flags & (RD | CD));
        (response, whole)
    }

    fn from_composed(rcode: Rcode, question_end: usize, composed: &Composed) -> Self {
        let ttl_offsets = composed.ttl_offsets.iter().copied();
        Self::assemble(rcode, question_end, ttl_offsets, &composed.octets, composed.counts)
    }

    /// Makes the block and the message's header but for its flags, and lower-cases the question.
    fn assemble(
        rcode: Rcode,
        question_end: usize,
        ttl_offsets: impl ExactSizeIterator<Item = u16>,
        octets: &[u8],
        counts: [u16; 3],
    ) -> Self {
        let message = HEAD_LENGTH + 2 * ttl_offsets.len();
        let mut block = Vec::with_capacity(message + octets.len());
        for number in [rcode.0, 0, ttl_offsets.len() as u16, question_end as u16].into_iter().chain(ttl_offsets) {
            block.extend_from_slice(&number.to_be_bytes());
        }
        block.extend_from_slice(octets);
        let [answers, authorities, additionals] = counts;
        for (index, number) in [0, QR | rcode.0 & 0x0f, 1, answers, authorities, additionals].into_iter().enumerate() {
            block[message + 2 * index..][..2].copy_from_slice(&number.to_be_bytes());
        }
        block[message + HEADER_LENGTH..message + question_end - 4].make_ascii_lowercase();
        Self { block: block.into_boxed_slice() }
    }

    fn message_mut(&mut self) -> &mut [u8] {
        let start = self.block.len() - self.wire().len();
        &mut self.block[start..]
    }

    fn replace_header_flags(&mut self, flags: u16) {
        let flags = QR | flags & KEPT_FLAGS | self.rcode().0 & 0x0f;
        self.message_mut()[2..4].copy_from_slice(&flags.to_be_bytes());
    }

    /// Takes over the header flags of another answer.
    pub(super) fn copy_flags(&mut self, other: &Self) {
        self.replace_header_flags(other.parts().header(1));
    }

    fn map_ttls(&mut self, change: impl Fn(u32) -> u32) {
        let start = self.block.len() - self.wire().len();
        let (head, message) = self.block.split_at_mut(start);
        for offset in head[HEAD_LENGTH..].as_chunks().0 {
            let offset = usize::from(u16::from_be_bytes(*offset));
            if let Some(ttl) = message.get_mut(offset..).and_then(<[u8]>::first_chunk_mut) {
                *ttl = change(u32::from_be_bytes(*ttl)).to_be_bytes();
            }
        }
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({}, {} octets)", self.rcode(), self.wire().len())
    }
}
