//! A client's query, read from its datagram without copying anything but the lower-cased name.

use super::header::Header;
use super::opt;
use super::reply_options::NSID;
use super::wire_reader::{HEADER_LENGTH, MAX_MESSAGE_LENGTH, MAX_NAME_LENGTH, u16_at, walk_name};
use super::{Class, ClientSubnet, LowerName, Rcode, RecordType, Rejection, WireError, work};
use smallvec::{Array, SmallVec};

/// What a query's OPT record says (RFC 6891 section 6.1). Of options only the framing is looked at: none is served or
/// passed on, but for those that a server block heeds ([`Query::client_subnet`], [`Query::asks_for_nsid`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The requestor's UDP payload size in octets, as sent (may be below 512).
    pub udp_size: u16,
    pub dnssec_ok: bool,
    pub version: u8,
}

/// A well-formed query with exactly one question. Holds facts and offsets; the octets stay in the datagram.
#[derive(Clone, Debug)]
pub struct Query {
    /// The first twelve octets.
    pub header: Header,
    /// QNAME in lower case.
    pub name: LowerName,
    /// QTYPE (RFC 1035 section 4.1.2).
    pub qtype: RecordType,
    /// QCLASS (RFC 1035 section 4.1.2).
    pub qclass: Class,
    /// Offset just after the question section; the question begins at 12.
    pub question_end: u16,
    /// Its OPT record (RFC 6891), if it has one.
    pub edns: Option<Edns>,
}

impl Query {
    /// Reads one message from a client: header, the question (no compression needed, but a pointer is malformed there),
    /// and every record after it, to find the OPT record. Octets after the last record are ignored. Never panics,
    /// whatever the octets.
    ///
    /// As in the reference, more than one record in the answer or authority section or two in the additional one (OPT
    /// and TSIG) is malformed.
    pub fn read(wire: &[u8]) -> Result<Self, Rejection> {
        let mut query = Self::EMPTY;
        query.read_from(wire)?;
        Ok(query)
    }
    /// For [`Query::read_from`].
    pub(crate) const EMPTY: Self = Self {
        header: Header { id: 0, flags: 0 },
        name: LowerName::ROOT,
        qtype: RecordType(0),
        qclass: Class(0),
        question_end: 0,
        edns: None,
    };
    /// [`Query::read`] in its place: a query is large to be handed back. Where that fails it is no query.
    #[inline]
    pub(crate) fn read_from(&mut self, wire: &[u8]) -> Result<(), Rejection> {
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
        self.header = header;
        self.read_body(wire, [word(2), word(3), word(4), word(5)]).map_err(|why| answer(Rcode::FORMERR, why))?;
        match self.edns {
            Some(edns) if edns.version > 0 => {
                Err(Rejection::BadVersion { header, question_end: self.question_end, dnssec_ok: edns.dnssec_ok })
            }
            _ => Ok(()),
        }
    }
    /// Reads what follows the header; `counts` are its four.
    #[inline]
    fn read_body(&mut self, wire: &[u8], counts: [u16; 4]) -> Result<(), WireError> {
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
        self.qtype = RecordType(u16_at(wire, name_end)?);
        self.qclass = Class(u16_at(wire, name_end + 2)?);
        let question_end = name_end + 4;
        self.question_end = question_end as u16;
        self.name.set_wire(wire.get(HEADER_LENGTH..name_end).unwrap_or_default());
        self.edns = if answers | authorities | additionals == 0 {
            None
        } else {
            find_opt(wire, question_end, answers + authorities, additionals)?.map(|(edns, _)| edns)
        };
        Ok(())
    }
    /// The question section's octets, case as the client wrote it. `wire` is what the query was read from.
    #[inline]
    pub fn question<'a>(&self, wire: &'a [u8]) -> &'a [u8] {
        wire.get(HEADER_LENGTH..usize::from(self.question_end)).unwrap_or_default()
    }
    /// DO (RFC 3225); false without an OPT record.
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }
    /// Octets a UDP answer may have: 512, or what EDNS offers if that is more (RFC 6891 section 6.2.3).
    pub fn udp_limit(&self) -> u16 {
        self.edns.map_or(512, |edns| edns.udp_size.max(512))
    }
    /// The client subnet that it names, where somebody wants to know. `wire` is what it was read from.
    ///
    /// # Errors
    /// The option is malformed, or has a scope, which only answers have (RFC 7871 section 6). It is to be answered
    /// FORMERR.
    #[cold]
    pub fn client_subnet(&self, wire: &[u8]) -> Result<Option<ClientSubnet>, WireError> {
        match ClientSubnet::find(self.options(wire)?)? {
            Some((_, 1..)) => Err(WireError::BadClientSubnet),
            found => Ok(found.map(|(subnet, _)| subnet)),
        }
    }
    /// True if it asks for the server's name (RFC 5001 section 2.1). `wire` is what it was read from.
    #[cold]
    pub fn asks_for_nsid(&self, wire: &[u8]) -> bool {
        self.options(wire).is_ok_and(|options| opt::Options(options).any(|(code, _)| code == NSID))
    }
    /// The options of its OPT record; none without one.
    fn options<'a>(&self, wire: &'a [u8]) -> Result<&'a [u8], WireError> {
        let [answers, authorities, additionals] = [u16_at(wire, 6)?, u16_at(wire, 8)?, u16_at(wire, 10)?];
        let opt = find_opt(wire, self.question_end.into(), answers + authorities, additionals)?;
        Ok(opt.map_or(&[], |(_, options)| options))
    }
    /// The option of its OPT record with this code, its data; `None` if there is none. `wire` is what it was read from.
    #[cold]
    pub fn option<'a>(&self, wire: &'a [u8], code: u16) -> Option<&'a [u8]> {
        let options = self.options(wire).unwrap_or_default();
        opt::Options(options).find(|(other, _)| *other == code).and_then(|(_, option)| option.get(4..))
    }
    /// The same query with another question, as a directive rewrites it: ID, flags and the records after the question
    /// stay. Its octets are put into `octets`, which is empty. `wire` is what this was read from.
    pub fn with_question<A: Array<Item = u8>>(
        &self,
        wire: &[u8],
        question: (&LowerName, RecordType, Class),
        octets: &mut SmallVec<A>,
    ) -> Self {
        let after = wire.len().saturating_sub(self.question_end.into());
        octets.resize(HEADER_LENGTH + question.0.as_wire().len() + 4 + after, 0);
        let mut changed = self.clone();
        (changed.name, changed.qtype, changed.qclass) = (question.0.clone(), question.1, question.2);
        // There is room.
        _ = changed.write_changed(wire, octets);
        changed
    }
    /// Writes a query whose name, type or class were changed since it was read from `wire`, in a buffer that its octets
    /// are then a part of; `None`, and nothing is changed, if it has no room.
    #[inline]
    pub fn write_changed<'b>(&mut self, wire: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let Self { name, qtype, qclass, .. } = self;
        let after = wire.get(usize::from(self.question_end)..)?;
        let name_end = HEADER_LENGTH + name.as_wire().len();
        let question_end = name_end + 4;
        let octets = buffer.get_mut(..question_end + after.len())?;
        *octets.first_chunk_mut()? = *wire.first_chunk::<HEADER_LENGTH>()?;
        octets[HEADER_LENGTH..name_end].copy_from_slice(name.as_wire());
        octets[name_end..name_end + 2].copy_from_slice(&qtype.0.to_be_bytes());
        octets[name_end + 2..question_end].copy_from_slice(&qclass.0.to_be_bytes());
        octets[question_end..].copy_from_slice(after);
        self.question_end = question_end as u16;
        Some(octets)
    }
    /// Gives it an OPT record that offers this size, if it has none. `octets` are its own.
    pub fn offer_edns<A: Array<Item = u8>>(&mut self, octets: &mut SmallVec<A>, udp_size: u16) {
        let Some(records) =
            octets.get(10..HEADER_LENGTH).and_then(<[u8]>::first_chunk).copied().map(u16::from_be_bytes)
        else {
            return;
        };
        if self.edns.is_none() {
            octets.extend_from_slice(&opt::encode(udp_size, 0, false));
            octets[10..HEADER_LENGTH].copy_from_slice(&(records + 1).to_be_bytes());
            self.edns = Some(Edns { udp_size, dnssec_ok: false, version: 0 });
        }
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

/// Offset after the question's name. Nothing precedes it that a pointer could lead to, so none is allowed.
#[inline]
pub(super) fn question_name_end(wire: &[u8]) -> Result<usize, WireError> {
    let mut at = HEADER_LENGTH;
    loop {
        work::count();
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

/// The OPT record among the records after the question, if there is one, and its options; every record must lie within
/// the message.
fn find_opt(
    wire: &[u8],
    question_end: usize,
    before_additional: u16,
    additional: u16,
) -> Result<Option<(Edns, &[u8])>, WireError> {
    let mut found = None;
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
        if found.is_some() || index < before_additional || fixed != owner + 1 || !opt::are_well_framed(options) {
            return Err(WireError::BadRecord(owner));
        }
        let edns = Edns { udp_size: u16::from_be_bytes([size_high, size_low]), dnssec_ok: flags & 0x80 != 0, version };
        found = Some((edns, options));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::header::{AD, CD, QR, RD};
    use super::*;

    const A_EXAMPLE: &[u8] = b"\x01A\x07eXample\x00\x00\x01\x00\x01";

    /// A query for `A.eXample. A IN` with these header flags, counts after the question's and octets after the
    /// question.
    fn message(flags: u16, counts: [u8; 3], rest: &[u8]) -> Vec<u8> {
        let [high, low] = flags.to_be_bytes();
        let [answers, authorities, additionals] = counts;
        let header = [0x12, 0x34, high, low, 0, 1, 0, answers, 0, authorities, 0, additionals];
        [&header, A_EXAMPLE, rest].concat()
    }

    /// An OPT record: UDP size, version, DO and options.
    fn opt(udp_size: u16, version: u8, dnssec_ok: bool, options: &[u8]) -> Vec<u8> {
        let mut record = opt::encode(udp_size, 0, dnssec_ok).to_vec();
        record[6] = version;
        record[10] = options.len() as u8;
        record.extend_from_slice(options);
        record
    }

    fn reply_to(wire: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let said = Query::read(wire).unwrap_err().write(wire, &mut out);
        assert!(out.starts_with(b"before"));
        said.then(|| out.split_off(6))
    }

    fn why(wire: &[u8]) -> WireError {
        match Query::read(wire).unwrap_err() {
            Rejection::Answer { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plain_query_is_read_with_its_name_in_lower_case() {
        let wire = message(RD, [0, 0, 0], b"");
        let query = Query::read(&wire).unwrap();
        assert_eq!((query.header.id, query.header.recursion_desired()), (0x1234, true));
        assert_eq!(query.name.to_string(), "a.example.");
        assert_eq!((query.qtype, query.qclass), (RecordType::A, Class::IN));
        assert_eq!(query.question(&wire), A_EXAMPLE);
        assert_eq!((query.edns, query.udp_limit(), query.dnssec_ok()), (None, 512, false));
    }

    #[test]
    fn nothing_is_left_of_what_was_read_before_in_the_same_place() {
        let with_opt = message(RD | CD, [0, 0, 1], &opt(4096, 0, true, &[]));
        let short = [&[0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x01B\0\0\x10\0\x03"].concat();
        let mut place = Query::EMPTY;
        for wire in [&with_opt, &short, &with_opt] {
            place.read_from(wire).unwrap();
            assert_eq!(format!("{place:?}"), format!("{:?}", Query::read(wire).unwrap()));
        }
    }

    #[test]
    fn what_opt_says_is_read() {
        let wire = message(RD | AD | CD, [0, 0, 1], &opt(4096, 0, true, &[0xfd, 0xe9, 0, 1, 7]));
        let query = Query::read(&wire).unwrap();
        assert_eq!(query.edns, Some(Edns { udp_size: 4096, dnssec_ok: true, version: 0 }));
        assert_eq!(query.udp_limit(), 4096);
        assert!(query.header.authentic_data() && query.header.checking_disabled());
    }

    #[test]
    fn a_client_subnet_is_read_for_whoever_wants_to_know_and_is_refused_with_a_scope() {
        let subnet = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
        let read = |options: &[u8]| {
            let wire = message(RD, [0, 0, 1], &opt(4096, 0, true, options));
            Query::read(&wire).unwrap().client_subnet(&wire)
        };
        let found = read(&[&[0, 10, 0, 1, 7][..], &subnet].concat()).unwrap().unwrap();
        assert_eq!((found.prefix(), &found.option(0)[..]), (24, &subnet[..]));
        assert_eq!(read(&[0, 10, 0, 1, 7]), Ok(None));
        let mut scoped = subnet;
        scoped[7] = 24;
        assert_eq!(read(&scoped), Err(WireError::BadClientSubnet));
        let mut beyond = subnet;
        beyond[6] = 17;
        assert_eq!(read(&beyond), Err(WireError::BadClientSubnet));
        let plain = message(RD, [0, 0, 0], b"");
        assert_eq!(Query::read(&plain).unwrap().client_subnet(&plain), Ok(None));
    }

    #[test]
    fn a_udp_size_below_512_counts_as_512() {
        let wire = message(0, [0, 0, 1], &opt(100, 0, false, &[]));
        let query = Query::read(&wire).unwrap();
        assert_eq!((query.udp_limit(), query.edns.unwrap().udp_size), (512, 100));
    }

    #[test]
    fn opt_is_found_before_and_after_another_record() {
        let tsig = b"\x01k\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x00";
        for rest in [[&opt(1400, 0, false, &[])[..], tsig].concat(), [tsig, &opt(1400, 0, false, &[])[..]].concat()] {
            assert_eq!(Query::read(&message(0, [0, 0, 2], &rest)).unwrap().udp_limit(), 1400);
        }
    }

    #[test]
    fn the_longest_name_is_read_and_a_longer_one_is_malformed() {
        let with_last_label = |length: u8| {
            let mut wire = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for length in [63, 63, 63, length] {
                wire.push(length);
                wire.extend(std::iter::repeat_n(b'X', length.into()));
            }
            wire.extend_from_slice(&[0, 0, 1, 0, 1]);
            wire
        };
        assert_eq!(Query::read(&with_last_label(61)).unwrap().name.as_wire().len(), 255);
        assert!(matches!(why(&with_last_label(62)), WireError::BadName(_)));
        assert!(matches!(why(&with_last_label(63)), WireError::BadName(_)));
    }

    #[test]
    fn octets_after_the_last_record_are_ignored() {
        assert!(Query::read(&message(0, [0, 0, 0], b"garbage")).is_ok());
    }

    #[test]
    fn a_query_with_one_record_in_the_answer_and_authority_sections_is_read() {
        let record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00";
        let rest = [&record[..], record, &opt(1400, 0, false, &[])].concat();
        assert_eq!(Query::read(&message(0, [1, 1, 1], &rest)).unwrap().udp_limit(), 1400);
    }

    #[test]
    fn a_fragment_of_a_header_and_a_response_are_dropped() {
        assert_eq!(reply_to(b""), None);
        assert_eq!(reply_to(&[0; 11]), None);
        assert_eq!(reply_to(&message(QR | RD, [0, 0, 0], b"")), None);
    }

    #[test]
    fn an_opcode_other_than_query_is_not_implemented() {
        let reply = reply_to(&message(5 << 11 | RD | CD | AD, [0, 0, 0], b"")).unwrap();
        assert_eq!(reply, [0x12, 0x34, 0xa9, 0x14, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_malformed_query_is_answered_formerr_with_a_header_only() {
        let reply = reply_to(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01").unwrap();
        assert_eq!(reply, [0x12, 0x34, 0x81, 0x01, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn every_malformation_is_told_apart() {
        assert_eq!(why(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), WireError::QuestionCount(0));
        assert_eq!(why(&[0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]), WireError::QuestionCount(2));
        assert_eq!(why(&message(0, [2, 0, 0], b"")), WireError::RecordCount(2));
        assert_eq!(why(&message(0, [0, 2, 0], b"")), WireError::RecordCount(2));
        assert_eq!(why(&message(0, [0, 0, 3], b"")), WireError::RecordCount(3));
        assert_eq!(why(b"\0\x01\0\0\0\x01\0\0\0\0\0\0\x03ab"), WireError::Short(16));
        assert_eq!(why(b"\0\x01\0\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0"), WireError::Short(17));
        assert_eq!(why(b"\0\x01\0\0\0\x01\0\0\0\0\0\0\x40a\0\0\x01\0\x01"), WireError::BadName(12));
        assert_eq!(why(&message(0, [0, 0, 1], b"")), WireError::Short(27));
        assert_eq!(why(&message(0, [0, 0, 1], &opt(512, 0, false, &[])[..10])), WireError::Short(28));
        assert_eq!(why(&message(0, [0, 0, 1], b"\0\0\x29\x02\0\0\0\0\0\0\x04\0\0")), WireError::Short(38));
    }

    #[test]
    fn an_opt_record_out_of_its_place_is_malformed() {
        let opt = opt(512, 0, false, &[]);
        assert_eq!(why(&message(0, [1, 0, 0], &opt)), WireError::BadRecord(27));
        assert_eq!(why(&message(0, [0, 1, 0], &opt)), WireError::BadRecord(27));
        assert_eq!(why(&message(0, [0, 0, 2], &[&opt[..], &opt].concat())), WireError::BadRecord(38));
        assert_eq!(why(&message(0, [0, 0, 1], &[b"\x01a", &opt[..]].concat())), WireError::BadRecord(27));
        assert_eq!(why(&message(0, [0, 0, 1], &[b"\xc0\x0c", &opt[1..]].concat())), WireError::BadRecord(27));
    }

    #[test]
    fn options_that_overrun_their_record_are_malformed() {
        let wire = message(0, [0, 0, 1], &opt(512, 0, false, &[0, 8, 0, 9, 1]));
        assert_eq!(why(&wire), WireError::BadRecord(27));
    }

    #[test]
    fn an_unknown_edns_version_is_answered_badvers_with_the_question_and_opt() {
        let reply = reply_to(&message(RD, [0, 0, 1], &opt(4096, 1, true, &[0, 10, 0, 0]))).unwrap();
        let header = [0x12, 0x34, 0x81, 0x00, 0, 1, 0, 0, 0, 0, 0, 1];
        assert_eq!(reply, [&header[..], A_EXAMPLE, &[0, 0, 41, 4, 208, 1, 0, 0x80, 0, 0, 0]].concat());
    }

    #[test]
    fn a_query_of_our_own_reads_back() {
        let wire = Query::compose(7, &[0], RecordType::NS, true);
        let query = Query::read(&wire).unwrap();
        assert_eq!((query.header, query.qtype, query.qclass), (Header { id: 7, flags: RD }, RecordType::NS, Class::IN));
        assert_eq!((query.name.as_wire(), query.edns), (&[0][..], None));
    }
}
