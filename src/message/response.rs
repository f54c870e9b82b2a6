//! A whole answer in wire form, checked once when it arrives, then copied and patched for each client.

use super::compose::{Composed, Composer};
use super::header::{AA, AD, CD, QR, RA, RD, TC};
use super::record::{Record, Section};
use super::validate::{Validated, validate};
use super::wire_reader::HEADER_LENGTH;
use super::{Class, ClientSubnet, ExtendedError, Name, Rcode, RecordType, Scope, WireError, work};
use smallvec::SmallVec;
use std::sync::Arc;

/// A validated answer: one question, every name and record within bounds, OPT taken out (its DO bit and extended rcode
/// remembered), and the offset of every TTL known, so that a client's copy needs no parsing. One block of octets.
///
/// The question is kept in lower case; each client's copy gets that client's spelling. The block: four 16-bit numbers
/// of ours (rcode, flags, number of records, end of the question), the 16-bit offset of each record's TTL, the message.
/// Clones share it until one is changed: thousands may wait for the same answer of 64 KiB.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    block: Arc<[u8]>,
    /// Goes with the answer to the client that asked, and into no cache.
    extended_error: Option<Arc<ExtendedError>>,
}

/// Octets of the block before the TTL offsets.
const HEAD_LENGTH: usize = 8;
/// Bit of the block's flags: the upstream's OPT record had DO set.
const DNSSEC_OK: u16 = 1;
/// Bit of the block's flags: the upstream was told the client's subnet, and what it said of the scope is in the upper
/// eight bits.
const HAS_SCOPE: u16 = 2;
/// What of an upstream's header is kept; the rcode is set anew, Z cleared (RFC 1035 section 4.1.1).
const KEPT_FLAGS: u16 = AA | TC | RD | RA | AD | CD;
/// In place of a scope, which has 128 bits at most: none was stated.
const UNSTATED: u8 = u8::MAX;

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
    #[inline]
    fn question_type(&self) -> RecordType {
        RecordType(u16_of(self.message, self.question_end - 4))
    }
    #[inline]
    fn question_class(&self) -> Class {
        Class(u16_of(self.message, self.question_end - 2))
    }
    #[inline]
    fn is_for(&self, name: &[u8], qtype: RecordType, qclass: Class) -> bool {
        self.question_type() == qtype && self.question_name() == name && self.question_class() == qclass
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
    /// Checks and takes over an upstream's answer. Names are compressed anew where the upstream put OPT before another
    /// record, or wrote names out and some clients would get the answer cut for that (CoreDNS compresses next to
    /// nothing over TCP). TTLs with the top bit set become 0 (RFC 2181 section 8). Octets after the last record are
    /// dropped, and if TC is set, so is a record that the message cuts off. TSIG and SIG(0) records are kept like any
    /// other.
    ///
    /// # Errors
    /// Anything malformed; a query; an opcode other than QUERY; a number of questions other than one; over 4,096
    /// records; over 65,535 octets.
    pub fn read(wire: &[u8]) -> Result<Self, WireError> {
        Self::take_over(&validate(wire)?)
    }
    fn take_over(checked: &Validated<'_>) -> Result<Self, WireError> {
        let mut response = if checked.keepable {
            let octets = checked.wire.get(..checked.end).ok_or(WireError::Short(checked.end))?;
            let ttl_offsets = checked.offsets.iter().map(|place| place.ttl);
            Self::assemble(checked.rcode, checked.flags, checked.question_end, ttl_offsets, octets, checked.counts)
        } else {
            let question = checked.wire.get(HEADER_LENGTH..checked.question_end).unwrap_or_default();
            let mut composer = Composer::new(&question.to_ascii_lowercase());
            composer.point_to_question(question);
            for record in checked.records() {
                composer.push(&record)?;
            }
            let mut response = Self::from_composed(checked.rcode, checked.question_end, &composer.finish());
            response.replace_header_flags(checked.flags);
            response
        };
        if checked.dnssec_ok {
            response.block_mut()[2..4].copy_from_slice(&DNSSEC_OK.to_be_bytes());
        }
        response.map_ttls(|ttl| if ttl > i32::MAX as u32 { 0 } else { ttl });
        Ok(response)
    }
    /// As [`Response::read`], of an answer to a query that had this subnet; remembers for how many bits of it the
    /// answer is. `is_proven`: none but the upstream can have sent it, since it came over TCP.
    ///
    /// # Errors
    /// Those of [`Response::read`]; the answer is for another subnet.
    pub fn read_for(wire: &[u8], subnet: &ClientSubnet, is_proven: bool) -> Result<Self, WireError> {
        let checked = validate(wire)?;
        let mut response = Self::take_over(&checked)?;
        let scope = match response.rcode() {
            Rcode::NOERROR | Rcode::NXDOMAIN => subnet.scope_of(checked.options, is_proven)?,
            _ => Scope::Unstated,
        };
        let octet = match scope {
            Scope::Stated(bits) => bits,
            Scope::Unstated => UNSTATED,
        };
        let flags = u16_of(&response.block, 2) | HAS_SCOPE | u16::from(octet) << 8;
        response.block_mut()[2..4].copy_from_slice(&flags.to_be_bytes());
        Ok(response)
    }
    /// For whom the answer is. `None` if it was asked without a subnet, so that it is for all who name none.
    pub fn scope(&self) -> Option<Scope> {
        let flags = u16_of(&self.block, 2);
        let scope = match (flags >> 8) as u8 {
            UNSTATED => Scope::Unstated,
            bits => Scope::Stated(bits),
        };
        (flags & HAS_SCOPE != 0).then_some(scope)
    }
    /// The DNS message, OPT left out, ID 0.
    pub fn wire(&self) -> &[u8] {
        self.parts().message
    }
    /// All 12 bits.
    #[inline]
    pub fn rcode(&self) -> Rcode {
        Rcode(u16_of(&self.block, 0))
    }
    /// TC: records are missing.
    pub fn is_truncated(&self) -> bool {
        self.parts().header(1) & TC != 0
    }
    /// AA.
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
        // Most answers are as they should be, and need no copy of their own.
        if (flags & bit != 0) != on {
            self.replace_header_flags(flags ^ bit);
        }
    }
    /// Lower-cased question name.
    pub fn question_name(&self) -> Name {
        Name::read(self.wire(), HEADER_LENGTH).map_or_else(|_| Name::root(), |(name, _)| name)
    }
    /// QTYPE of its question.
    pub fn question_type(&self) -> RecordType {
        self.parts().question_type()
    }
    /// QCLASS of its question.
    pub fn question_class(&self) -> Class {
        self.parts().question_class()
    }
    /// Lower-cased question name, type and class; what RFC 5452 section 9.1 wants compared.
    pub fn question_matches(&self, name: &[u8], qtype: RecordType, qclass: Class) -> bool {
        self.parts().is_for(name, qtype, qclass)
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
            work::count();
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
    /// Of an answer without an error that has nothing of what was asked for, no alias either (RFC 2308 section 2.2):
    /// whether an SOA record says how long that holds. `None` of any other.
    pub fn absence(&self) -> Option<bool> {
        let parts = self.parts();
        if parts.rcode != Rcode::NOERROR || parts.header(3) > 0 {
            return None;
        }
        // A record's type stands before its class and TTL.
        let rtype = |ttl: [u8; 2]| u16_of(parts.message, usize::from(u16::from_be_bytes(ttl)) - 4);
        let authorities = usize::from(parts.header(4));
        Some(parts.ttl_offsets.iter().take(authorities).any(|ttl| rtype(*ttl) == RecordType::SOA.0))
    }
    /// Sets every TTL.
    pub fn set_ttls(&mut self, seconds: u32) {
        self.map_ttls(|_| seconds);
    }
    /// Takes so many seconds off every TTL, down to 0.
    pub fn reduce_ttls(&mut self, seconds: u32) {
        self.map_ttls(|ttl| ttl.saturating_sub(seconds));
    }
    /// Leaves out the authority and additional sections.
    pub fn keep_answers_only(&mut self) {
        let parts = self.parts();
        let kept = self.answer_count();
        let Some((offsets, 1..)) = parts.ttl_offsets.split_at_checked(kept).map(|(kept, rest)| (kept, rest.len()))
        else {
            return;
        };
        // Names point back, so what stays is whole.
        let end = offsets.last().map_or(parts.question_end, |offset| parts.record_end(*offset));
        let (rcode, flags, question_end) = (parts.rcode, parts.header(1), parts.question_end);
        let octets = parts.message.get(..end).unwrap_or_default();
        let offsets: SmallVec<[u16; 32]> = offsets.iter().map(|offset| u16::from_be_bytes(*offset)).collect();
        let mut shorter = Self::assemble(rcode, flags, question_end, offsets.into_iter(), octets, [kept as u16, 0, 0]);
        shorter.copy_origin(self);
        *self = shorter;
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

    pub(super) fn from_composed(rcode: Rcode, question_end: usize, composed: &Composed) -> Self {
        let ttl_offsets = composed.ttl_offsets.iter().copied();
        Self::assemble(rcode, 0, question_end, ttl_offsets, &composed.octets, composed.counts)
    }

    /// Makes the block and the message's header, and lower-cases the question.
    fn assemble(
        rcode: Rcode,
        flags: u16,
        question_end: usize,
        ttl_offsets: impl ExactSizeIterator<Item = u16>,
        octets: &[u8],
        counts: [u16; 3],
    ) -> Self {
        let message = HEAD_LENGTH + 2 * ttl_offsets.len();
        let mut block: SmallVec<[u8; 512]> = SmallVec::with_capacity(message + octets.len());
        block.resize(message, 0);
        let numbers = [rcode.0, 0, ttl_offsets.len() as u16, question_end as u16].into_iter().chain(ttl_offsets);
        for (place, number) in block.as_chunks_mut().0.iter_mut().zip(numbers) {
            *place = number.to_be_bytes();
        }
        block.extend_from_slice(octets);
        let [answers, authorities, additionals] = counts;
        let header = [0, QR | flags & KEPT_FLAGS | rcode.0 & 0x0f, 1, answers, authorities, additionals];
        for (place, number) in block[message..].as_chunks_mut().0.iter_mut().zip(header) {
            *place = number.to_be_bytes();
        }
        block[message + HEADER_LENGTH..message + question_end - 4].make_ascii_lowercase();
        Self { block: block.as_slice().into(), extended_error: None }
    }

    fn block_mut(&mut self) -> &mut [u8] {
        Arc::make_mut(&mut self.block)
    }

    fn message_mut(&mut self) -> &mut [u8] {
        let start = self.block.len() - self.wire().len();
        &mut self.block_mut()[start..]
    }

    /// Replaces all 12 bits; the message's header holds the lower four.
    pub(super) fn replace_rcode(&mut self, rcode: Rcode) {
        self.block_mut()[..2].copy_from_slice(&rcode.0.to_be_bytes());
        self.replace_header_flags(self.parts().header(1));
    }

    pub(super) fn replace_header_flags(&mut self, flags: u16) {
        let flags = QR | flags & KEPT_FLAGS | self.rcode().0 & 0x0f;
        self.message_mut()[2..4].copy_from_slice(&flags.to_be_bytes());
    }

    /// Takes over the header flags of another answer.
    pub(super) fn copy_flags(&mut self, other: &Self) {
        self.replace_header_flags(other.parts().header(1));
    }

    /// What a directive says of the error beside its rcode.
    pub fn extended_error(&self) -> Option<&ExtendedError> {
        self.extended_error.as_deref()
    }
    /// Has replies of it carry this extended DNS error (RFC 8914).
    pub fn set_extended_error(&mut self, error: Arc<ExtendedError>) {
        self.extended_error = Some(error);
    }

    /// Takes over what the upstream of another answer said beside its message: DO, and for whom the answer is.
    pub(super) fn copy_origin(&mut self, other: &Self) {
        let numbers = [other.block[2], other.block[3]];
        if self.block[2..4] != numbers {
            self.block_mut()[2..4].copy_from_slice(&numbers);
        }
    }

    fn map_ttls(&mut self, change: impl Fn(u32) -> u32) {
        // Most answers are as they should be, and need no copy of their own.
        if self.records().all(|record| change(record.ttl) == record.ttl) {
            return;
        }
        let start = self.block.len() - self.wire().len();
        let (head, message) = self.block_mut().split_at_mut(start);
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

#[cfg(test)]
mod tests {
    use super::super::fixtures::{QUESTION, QUESTION_END, TO_QUESTION, address, answer, listing, opt, query, record};
    use super::super::wire_reader::MAX_MESSAGE_LENGTH;
    use super::super::{ReplyShape, TtlRule};
    use super::*;
    use Section::{Additional, Answer, Authority};

    #[test]
    fn an_absence_is_noerror_without_answers_and_an_soa_record_of_the_authority_section_dates_it() {
        let soa = |section| record(section, TO_QUESTION, RecordType::SOA.0, 60, &[0; 22]);
        let absence =
            |flags, records: &[(Section, Vec<u8>)]| Response::read(&answer(flags, records)).unwrap().absence();
        assert_eq!(absence(QR, &[address(Authority, 60, 1), soa(Authority)]), Some(true));
        assert_eq!(absence(QR, &[address(Authority, 60, 1), soa(Additional)]), Some(false));
        assert_eq!(absence(QR, &[]), Some(false));
        assert_eq!(absence(QR | 3, &[soa(Authority)]), None);
        assert_eq!(absence(QR | 2, &[]), None);
        assert_eq!(absence(QR, &[address(Answer, 60, 1), soa(Authority)]), None);
    }

    #[test]
    fn clones_share_their_octets_until_one_is_changed() {
        let first = read(&[address(Answer, 300, 1)]).unwrap();
        let mut clone = first.clone();
        assert_eq!(clone.wire().as_ptr(), first.wire().as_ptr());
        clone.set_ttls(7);
        assert_eq!((first.records().next().unwrap().ttl, clone.records().next().unwrap().ttl), (300, 7));
    }

    const SOA: &[u8] = b"\x02ns\xc0\x0c\x04host\xc0\x0c\0\0\0\x07\0\0\x1c\x20\0\0\x03\x84\0\x12\x75\0\0\0\0\x3c";

    fn read(records: &[(Section, Vec<u8>)]) -> Result<Response, WireError> {
        Response::read(&answer(QR | RD | RA, records))
    }

    /// A record that makes an answer too long for some clients.
    fn long() -> (Section, Vec<u8>) {
        record(Answer, TO_QUESTION, 65400, 60, &[0; 450])
    }

    /// Data of all records with their names written out, as hickory-proto sees it.
    fn decoded(response: &Response) -> Vec<String> {
        let message = response.to_message().unwrap();
        let sections = [&message.answers, &message.authorities, &message.additionals];
        sections.into_iter().flatten().map(|record| record.to_string()).collect()
    }

    #[test]
    fn an_answer_that_is_compressed_is_kept_octet_for_octet_without_opt_and_id() {
        let records = [address(Answer, 60, 1), address(Answer, 60, 2)];
        let wire = answer(QR | AA | RD | RA, &[&records[..], &[opt(0x8000)]].concat());
        let response = Response::read(&wire).unwrap();
        let mut expected = answer(QR | AA | RD | RA, &records);
        expected[..2].fill(0);
        assert_eq!(response.wire(), expected);
        assert!(response.dnssec_ok() && response.is_authoritative() && !response.is_truncated());
        assert_eq!(response.heap_size(), 8 + 2 * 2 + expected.len());
    }

    #[test]
    fn the_scope_of_an_answer_to_a_query_with_a_subnet_is_remembered_whatever_is_changed_after() {
        let subnet = [0, 8, 0, 6, 0, 1, 16, 0, 192, 0];
        let asked = ClientSubnet::find(&subnet).unwrap().unwrap().0;
        let with = |rcode: u16, scope: u8| {
            let mut opt = opt(0x8000).1;
            opt[10] = 10;
            opt.extend_from_slice(&subnet);
            opt[18] = scope;
            answer(QR | rcode, &[address(Answer, 60, 1), (Additional, opt)])
        };
        let mut response = Response::read_for(&with(0, 12), &asked, false).unwrap();
        response.set_ttls(7);
        response.set_flag(AD, true);
        assert_eq!(
            (response.scope(), response.dnssec_ok(), response.rcode()),
            (Some(Scope::Stated(12)), true, Rcode::NOERROR)
        );
        assert_eq!(Response::read(&with(0, 12)).unwrap().scope(), None);
        let scope = |wire: &[u8]| Response::read_for(wire, &asked, true).map(|response| response.scope());
        assert_eq!(scope(&with(3, 0)), Ok(Some(Scope::Stated(0))));
        assert_eq!(scope(&answer(QR, &[])), Ok(Some(Scope::Stated(0))));
        assert_eq!(Response::read_for(&answer(QR, &[]), &asked, false).unwrap().scope(), Some(Scope::Unstated));
        // Whose failure it is nobody says.
        assert_eq!(
            (scope(&with(2, 0)), scope(&answer(QR | 5, &[]))),
            (Ok(Some(Scope::Unstated)), Ok(Some(Scope::Unstated)))
        );
        let mut other = with(0, 12);
        *other.last_mut().unwrap() = 1;
        assert_eq!(scope(&other), Err(WireError::OtherClientSubnet));
    }

    #[test]
    fn records_are_listed_with_section_owner_ttl_and_data() {
        let wire = answer(
            QR,
            &[
                record(Answer, TO_QUESTION, 5, 30, b"\x01a\xc0\x0c"),
                record(Answer, b"\xc0\x25", 1, 31, &[192, 0, 2, 1]),
                record(Authority, TO_QUESTION, 6, 32, SOA),
                record(Additional, b"\x02ns\xc0\x0c", 28, 33, &[0; 16]),
            ],
        );
        assert_eq!(
            listing(&wire),
            [
                "Answer example. 30 CNAME 4",
                "Answer a.example. 31 A 4",
                "Authority example. 32 SOA 32",
                "Additional ns.example. 33 AAAA 16"
            ]
        );
        let response = Response::read(&wire).unwrap();
        assert_eq!((response.answer_count(), response.authority_count()), (2, 1));
        assert_eq!(
            response.records().map(|record| record.soa_minimum()).collect::<Vec<_>>(),
            [None, None, Some(60), None]
        );
    }

    #[test]
    fn answers_alone_are_kept_with_all_that_is_known_of_them() {
        let records = [address(Answer, 60, 1), address(Authority, 61, 2), address(Additional, 62, 3)];
        let wire = answer(QR | RD | RA, &[&records[..], &[opt(0x8000)]].concat());
        let mut response = Response::read(&wire).unwrap();
        response.keep_answers_only();
        assert_eq!(response, Response::read(&answer(QR | RD | RA, &[records[0].clone(), opt(0x8000)])).unwrap());
        let before = response.clone();
        response.keep_answers_only();
        assert_eq!(response, before);
        let mut nothing = read(&[address(Authority, 61, 2)]).unwrap();
        nothing.keep_answers_only();
        assert_eq!((nothing.records().count(), nothing.wire().len()), (0, QUESTION_END));
    }

    #[test]
    fn the_question_is_kept_in_lower_case() {
        let wire = [&answer(QR, &[])[..12], b"\x07EXample\x00\x00\x01\x00\x01"].concat();
        let response = Response::read(&wire).unwrap();
        assert_eq!(response.question_name().to_string(), "example.");
        assert!(response.question_matches(b"\x07example\x00", RecordType::A, Class::IN));
        assert!(!response.question_matches(b"\x07example\x00", RecordType::AAAA, Class::IN));
        assert!(!response.question_matches(b"\x07example\x00", RecordType::A, Class::CH));
        assert!(!response.question_matches(b"\x06xample\x00", RecordType::A, Class::IN));
    }

    #[test]
    fn the_extended_rcode_of_opt_is_remembered() {
        let response = Response::read(&answer(QR | 7, &[opt(0x01 << 24)])).unwrap();
        assert_eq!(response.rcode(), Rcode(23));
        assert_eq!(u16::from(response.to_message().unwrap().metadata.response_code), 23);
    }

    #[test]
    fn the_reserved_header_bit_is_cleared() {
        assert_eq!(Response::read(&answer(QR | 0x0040, &[])).unwrap().wire()[3], 0);
    }

    #[test]
    fn names_written_out_in_a_long_answer_are_compressed() {
        let owner = b"\x01a\x07example\x00";
        let records: Vec<_> = (1..=25).map(|last| record(Answer, owner, 1, 60, &[192, 0, 2, last])).collect();
        let response = read(&records).unwrap();
        assert_eq!(response.wire().len(), QUESTION_END + (4 + 14) + 24 * 16);
        let expected: Vec<_> = (1..=25).map(|last| format!("a.example. 60 IN A 192.0.2.{last}")).collect();
        assert_eq!(decoded(&response), expected);
    }

    #[test]
    fn names_spelt_otherwise_than_the_question_keep_their_case_when_compressed() {
        let target = b"\x07EXAMPLE\x00";
        let response = read(&[record(Answer, QUESTION.split_at(9).0, 12, 60, target), long()]).unwrap();
        assert_eq!(decoded(&response)[0], "example. 60 IN PTR EXAMPLE.");
    }

    #[test]
    fn names_in_data_are_compressed_only_where_rfc_3597_allows() {
        let out = b"\x01x\x07example\x00";
        let mx = record(Answer, out, 15, 60, &[&[0, 10][..], out].concat());
        let srv = record(Answer, out, 33, 60, &[&[0, 0, 0, 100, 0, 53][..], out].concat());
        let response = read(&[mx, srv, long()]).unwrap();
        let lengths: Vec<_> = response.records().map(|record| record.rdata().len()).take(2).collect();
        assert_eq!(lengths, [4, 6 + 11]);
        assert_eq!(
            decoded(&response)[..2],
            ["x.example. 60 IN MX 10 x.example.", "x.example. 60 IN SRV 0 100 53 x.example."]
        );
    }

    #[test]
    fn opt_before_another_record_is_taken_out_and_pointers_past_it_still_lead_home() {
        let first = record(Additional, b"\x02ns\xc0\x0c", 1, 60, &[192, 0, 2, 53]);
        let past_opt = QUESTION_END + first.1.len() + 11;
        let second = record(Additional, b"\x01b\xc0\x0c", 1, 60, &[192, 0, 2, 54]);
        let third = record(Additional, &(0xc000 | past_opt as u16).to_be_bytes(), 1, 60, &[192, 0, 2, 55]);
        let response = read(&[first, opt(0x8000), second, third]).unwrap();
        assert_eq!(
            decoded(&response),
            ["ns.example. 60 IN A 192.0.2.53", "b.example. 60 IN A 192.0.2.54", "b.example. 60 IN A 192.0.2.55"]
        );
        assert!(response.dnssec_ok());
    }

    #[test]
    fn data_of_unknown_types_is_carried_opaquely() {
        let response = read(&[record(Answer, TO_QUESTION, 65400, 60, b"\xc0\xff\x00")]).unwrap();
        assert_eq!(response.records().next().unwrap().rdata(), b"\xc0\xff\x00");
    }

    #[test]
    fn a_ttl_with_the_top_bit_set_counts_as_zero() {
        let response = read(&[address(Answer, 0x8000_0000, 1), address(Answer, i32::MAX as u32, 2)]).unwrap();
        assert_eq!(response.records().map(|record| record.ttl).collect::<Vec<_>>(), [0, i32::MAX as u32]);
    }

    #[test]
    fn a_name_that_borrows_the_octets_of_a_ttl_keeps_its_meaning_when_ttls_change() {
        // The TTL 0x01780000 of the first record reads as the name `x.`, to which the second record's owner points.
        let ttl_offset = QUESTION_END + 2 + 4;
        let wire = answer(
            QR,
            &[
                address(Answer, 0x0178_0000, 1),
                record(Answer, &(0xc000 | ttl_offset as u16).to_be_bytes(), 1, 5, &[192, 0, 2, 2]),
            ],
        );
        let mut response = Response::read(&wire).unwrap();
        response.set_ttls(7);
        assert_eq!(decoded(&response), ["example. 7 IN A 192.0.2.1", "x. 7 IN A 192.0.2.2"]);
    }

    #[test]
    fn a_name_that_borrows_octets_of_the_questions_class_keeps_its_meaning_under_another_class() {
        // Found by fuzzing: the class's zero octet reads as the root, to which the record's data points.
        let mut wire =
            answer(QR, &[record(Answer, TO_QUESTION, 5, 60, &(0xc000 | (QUESTION_END as u16 - 2)).to_be_bytes())]);
        let (query, mut asked_otherwise) = query("example.", 0, None);
        wire[QUESTION_END - 2..QUESTION_END].copy_from_slice(&[0, 1]);
        let response = Response::read(&wire).unwrap();
        asked_otherwise[QUESTION_END - 2] = 1;
        let mut copy = Vec::new();
        response.write(
            &query,
            &asked_otherwise,
            ReplyShape { ttl: TtlRule::Keep, limit: 512, udp_size: 1232 },
            &mut copy,
        );
        assert_eq!(Response::read(&copy).unwrap().records().next().unwrap().data().unwrap().names[..], [Name::root()]);
    }

    #[test]
    fn a_name_that_borrows_a_pointer_from_within_the_questions_labels_keeps_its_meaning() {
        // Found by fuzzing: the pointer's second octet is a letter, which is written in lower case, and then as the
        // client spells it.
        let long = [&[63][..], &[b'x'; 52], b"\x01q\x00", &[b'x'; 8]].concat();
        let question = [&long[..], b"\x02\xc0\x41\x00\x00\x01\x00\x01"].concat();
        let owner = (0xc000 | (12 + long.len() as u16 + 1)).to_be_bytes();
        let (_, record) = record(Answer, &owner, 1, 60, &[192, 0, 2, 1]);
        let mut header = answer(QR, &[])[..12].to_vec();
        header[7] = 1;
        let response = Response::read(&[header, question, record].concat()).unwrap();
        let owner = |response: &Response| response.records().next().map(|record| record.owner().to_string());
        assert_eq!(owner(&response).as_deref(), Some("q."));
        assert_eq!(owner(&Response::read(response.wire()).unwrap()).as_deref(), Some("q."));
    }

    #[test]
    fn octets_after_the_last_record_are_dropped() {
        let clean = answer(QR, &[address(Answer, 60, 1)]);
        let dirty = [&clean[..], b"garbage"].concat();
        assert_eq!(Response::read(&dirty), Response::read(&clean));
    }

    #[test]
    fn a_truncated_answer_may_end_within_a_record() {
        let records = [address(Answer, 60, 1), address(Answer, 60, 2), address(Additional, 60, 3)];
        let whole = answer(QR | TC, &records);
        for end in whole.len() - 31..whole.len() - 16 {
            let response = Response::read(&whole[..end]).unwrap();
            assert_eq!((response.answer_count(), response.records().count()), (1, 1), "{end}");
        }
        let mut claims_to_be_whole = answer(QR, &records);
        claims_to_be_whole.truncate(whole.len() - 1);
        assert!(matches!(Response::read(&claims_to_be_whole), Err(WireError::Short(_))));
    }

    #[test]
    fn what_is_no_answer_to_one_question_is_refused() {
        let with_questions = |count| {
            let mut wire = answer(QR, &[]);
            wire[5] = count;
            Response::read(&wire)
        };
        assert_eq!(with_questions(0), Err(WireError::QuestionCount(0)));
        assert_eq!(with_questions(2), Err(WireError::QuestionCount(2)));
        assert_eq!(Response::read(&answer(0, &[])), Err(WireError::NotAResponse));
        assert_eq!(Response::read(&answer(QR | 5 << 11, &[])), Err(WireError::Opcode(5)));
        assert_eq!(Response::read(&[0; 65_536]), Err(WireError::TooLong));
        for end in 0..QUESTION_END {
            assert!(Response::read(&answer(QR, &[])[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn more_records_than_fit_into_a_message_of_addresses_are_refused() {
        let mut wire = answer(QR, &[]);
        wire[6..8].copy_from_slice(&4097_u16.to_be_bytes());
        assert_eq!(Response::read(&wire), Err(WireError::RecordCount(4097)));
    }

    #[test]
    fn a_message_of_nothing_but_addresses_may_be_as_long_as_tcp_carries() {
        let count = (MAX_MESSAGE_LENGTH - QUESTION_END) / 16;
        let wire = answer(QR, &vec![address(Answer, 60, 1); count]);
        assert_eq!(Response::read(&wire).unwrap().answer_count(), count);
    }

    #[test]
    fn of_two_opt_records_the_last_counts_and_one_out_of_its_place_is_left_out() {
        let twice = read(&[opt(1 << 24), opt(0x8000)]).unwrap();
        assert_eq!((twice.rcode(), twice.dnssec_ok()), (Rcode::NOERROR, true));
        for section in [Answer, Authority] {
            let misplaced = read(&[(section, opt(0x8000).1), address(section, 60, 1)]).unwrap();
            assert_eq!((misplaced.dnssec_ok(), listing(misplaced.wire()).len()), (false, 1));
        }
        let owned = [b"\x01a", &opt(0x8000).1[..]].concat();
        assert!(read(&[(Additional, owned)]).unwrap().dnssec_ok());
    }

    #[test]
    fn data_that_does_not_fit_its_type_is_refused() {
        for (rtype, data) in [
            (1, &[192, 0, 2][..]),
            (28, &[0; 15]),
            (5, b""),
            (5, b"\x01a"),
            (5, b"\x01a\x00\x00"),
            (5, b"\xc0\xff"),
            (6, &SOA[..SOA.len() - 1]),
            (15, b"\x00"),
            (33, b"\x00\x00\x00\x00\x00\x35"),
            (35, b"\x00\x01\x00\x01\x01S\x08SIP"),
            (46, &[0; 18]),
        ] {
            let record = record(Answer, TO_QUESTION, rtype, 60, data);
            let mut wire = answer(QR, &[record, address(Answer, 60, 1)]);
            assert!(Response::read(&wire).is_err(), "type {rtype}");
            wire.truncate(wire.len() - 16);
            wire[2..4].copy_from_slice(&(QR | TC).to_be_bytes());
            assert!(Response::read(&wire).is_err(), "type {rtype}, truncated");
        }
    }

    #[test]
    fn naptr_with_its_strings_and_name_is_read() {
        let naptr = record(Answer, b"\x01n\x07example\x00", 35, 60, b"\0\x01\0\x02\x01S\x07SIP+D2U\0\x04_sip\xc0\x0c");
        let response = read(&[naptr, long()]).unwrap();
        assert_eq!(
            response.records().next().unwrap().rdata(),
            b"\0\x01\0\x02\x01S\x07SIP+D2U\0\x04_sip\x07example\x00"
        );
    }

    #[test]
    fn flags_are_set_and_cleared_one_by_one() {
        let mut response = Response::read(&answer(QR | RA | AD, &[])).unwrap();
        response.set_flag(AA, true);
        response.set_flag(AD, false);
        assert_eq!(response.wire()[2..4], (QR | AA | RA).to_be_bytes());
    }
}
