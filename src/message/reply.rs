//! A stored answer's copy for one client.

use super::header::{AD, OPCODE, RD, TC};
use super::opt::{self, OPT_LENGTH};
use super::response::{Parts, Response};
use super::wire_reader::{HEADER_LENGTH, MAX_MESSAGE_LENGTH};
use super::{ClientSubnet, Query, Rcode, ReplyOptions, Scope};

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
pub struct ReplyShape {
    /// What becomes of the TTLs.
    pub ttl: TtlRule,
    /// Octets the reply may have; records that do not fit are left out and TC is set (RFC 2181 section 9). Below 512
    /// counts as 512 (RFC 6891 section 6.2.3).
    pub limit: usize,
    /// The UDP payload size we state in our OPT record.
    pub udp_size: u16,
}

/// The least limit there is (RFC 1035 section 4.2.1): a header, any question and an OPT record with a client's subnet
/// and the name of a server fit.
pub(super) const MIN_LIMIT: usize = 512;

impl Response {
    /// Appends the reply for one client: the octets copied; ID, RD, question case and TTLs patched; AD kept only if the
    /// client set DO or AD (RFC 6840 section 5.7); an OPT record if, and only if, the client sent one; cut to the
    /// limit. Allocates nothing when `out` has room and the question is the one the answer was stored for.
    ///
    /// Cut means: the records that fit, up to the first that does not, and TC. An rcode that needs an OPT record
    /// (BADVERS, BADCOOKIE) becomes SERVFAIL for a client that sent none; its low four bits alone would say something
    /// else. Another question than the stored one, as a rewriting directive leaves it, is put in with all names written
    /// anew.
    #[inline]
    pub fn write(&self, query: &Query, wire: &[u8], reply: ReplyShape, out: &mut Vec<u8>) {
        self.write_parts(query, wire, reply, &[], out);
    }

    /// The same with these options in the OPT record, if the client sent one. They count towards the limit.
    #[cold]
    pub fn write_with_options(
        &self,
        query: &Query,
        wire: &[u8],
        reply: ReplyShape,
        options: &ReplyOptions,
        out: &mut Vec<u8>,
    ) {
        self.write_parts(query, wire, reply, options.octets(), out);
    }

    /// [`Response::write`] to a query that is known to have the stored question: for a cache, which has compared it.
    #[inline]
    pub fn write_to_its_question(&self, query: &Query, wire: &[u8], reply: ReplyShape, out: &mut Vec<u8>) {
        let parts = self.parts();
        debug_assert_eq!(parts.question_name(), query.name.as_wire(), "another name would overwrite records");
        append(parts, false, (query, wire), reply, &[], out);
    }

    /// Always inlined: a hit has no options, and passes through nothing else.
    #[inline(always)]
    fn write_parts(&self, query: &Query, wire: &[u8], reply: ReplyShape, options: &[u8], out: &mut Vec<u8>) {
        let parts = self.parts();
        if parts.question_name() == query.name.as_wire() {
            append(parts, false, (query, wire), reply, options, out);
        } else {
            self.write_under_another_name((query, wire), reply, options, out);
        }
    }

    /// Gives a client its subnet back where that was passed on: as it was sent, and for how many bits of it the answer
    /// is (RFC 7871 section 7.2.1).
    #[cold]
    pub fn put_subnet(&self, sent: &ClientSubnet, options: &mut ReplyOptions) {
        let bits = match self.scope() {
            Some(Scope::Stated(bits)) => bits,
            // What is made here is made for nobody, but a failure is not to be anybody else's.
            None if matches!(self.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) => 0,
            Some(Scope::Unstated) | None => sent.prefix(),
        };
        options.push(&sent.option(bits));
    }

    #[cold]
    fn write_under_another_name(
        &self,
        (query, wire): (&Query, &[u8]),
        reply: ReplyShape,
        options: &[u8],
        out: &mut Vec<u8>,
    ) {
        let (mut renamed, whole) = Self::compose(query, wire, self.rcode(), self.records());
        renamed.copy_flags(self);
        append(renamed.parts(), !whole, (query, wire), reply, options, out);
    }
}

/// `options`: those of the OPT record, if the client sent one.
#[inline]
fn append(
    parts: Parts<'_>,
    mut truncated: bool,
    (query, wire): (&Query, &[u8]),
    reply: ReplyShape,
    options: &[u8],
    out: &mut Vec<u8>,
) {
    let Parts { rcode, message, .. } = parts;
    let opt_length = if query.edns.is_some() { OPT_LENGTH + options.len() } else { 0 };
    let budget = reply.limit.clamp(MIN_LIMIT, MAX_MESSAGE_LENGTH) - opt_length;
    let (mut end, mut ttl_offsets) = (message.len(), parts.ttl_offsets);
    let mut counts = [parts.header(3), parts.header(4), parts.header(5)];
    if end > budget {
        (end, ttl_offsets) = cut(&parts, budget, &mut counts);
        truncated = true;
    }

    let start = out.len();
    out.reserve(end + opt_length);
    out.extend_from_slice(&message[..end]);
    let copy = &mut out[start..];

    let mut kept = !RD;
    if !query.dnssec_ok() && !query.header.authentic_data() {
        kept &= !AD;
    }
    let mut flags = parts.header(1) & kept | query.header.flags & (OPCODE | RD);
    if truncated {
        flags |= TC;
    }
    if rcode.0 > 0x0f && query.edns.is_none() {
        flags = flags & !0x0f | Rcode::SERVFAIL.0;
    }
    let additionals = counts[2] + u16::from(query.edns.is_some());
    if let Some(header) = copy.first_chunk_mut::<HEADER_LENGTH>() {
        header[0..2].copy_from_slice(&query.header.id.to_be_bytes());
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        header[6..8].copy_from_slice(&counts[0].to_be_bytes());
        header[8..10].copy_from_slice(&counts[1].to_be_bytes());
        header[10..12].copy_from_slice(&additionals.to_be_bytes());
    }
    let question = query.question(wire);
    if let Some(place) = copy.get_mut(HEADER_LENGTH..HEADER_LENGTH + question.len()) {
        place.copy_from_slice(question);
    }
    if let TtlRule::Set(seconds) = reply.ttl {
        let seconds = seconds.to_be_bytes();
        for offset in ttl_offsets {
            let offset = usize::from(u16::from_be_bytes(*offset));
            if let Some(ttl) = copy.get_mut(offset..offset + 4) {
                ttl.copy_from_slice(&seconds);
            }
        }
    }
    if let Some(edns) = query.edns {
        let mut opt = opt::encode(reply.udp_size, (rcode.0 >> 4) as u8, edns.dnssec_ok);
        if !options.is_empty() {
            opt[OPT_LENGTH - 2..].copy_from_slice(&(options.len() as u16).to_be_bytes());
        }
        out.extend_from_slice(&opt);
        out.extend_from_slice(options);
    }
}

/// What of a message fits: its end, and the TTL offsets of the records kept. Like miekg/dns's Truncate, the first
/// record that does not fit ends the message, even if a later one would.
#[cold]
fn cut<'a>(parts: &Parts<'a>, budget: usize, counts: &mut [u16; 3]) -> (usize, &'a [[u8; 2]]) {
    let kept = parts.ttl_offsets.partition_point(|offset| parts.record_end(*offset) <= budget);
    let (ttl_offsets, _) = parts.ttl_offsets.split_at(kept);
    let end = ttl_offsets.last().map_or(parts.question_end, |offset| parts.record_end(*offset));
    let mut left = kept as u16;
    for count in counts {
        *count = left.min(*count);
        left -= *count;
    }
    (end, ttl_offsets)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{QUESTION_END, TO_QUESTION, address, answer, listing, opt, query, record};
    use super::super::header::{AA, CD, QR, RA};
    use super::super::{RecordType, Section};
    use super::*;
    use Section::{Additional, Answer, Authority};

    const PLAIN: ReplyShape = ReplyShape { ttl: TtlRule::Keep, limit: 65_535, udp_size: 1232 };

    fn stored(flags: u16, records: &[(Section, Vec<u8>)]) -> Response {
        Response::read(&answer(flags, records)).unwrap()
    }

    fn reply(response: &Response, client: &(Query, Vec<u8>), shape: ReplyShape) -> Vec<u8> {
        let mut out = b"before".to_vec();
        response.write(&client.0, &client.1, shape, &mut out);
        assert!(out.starts_with(b"before"));
        out.split_off(6)
    }

    fn flags(reply: &[u8]) -> u16 {
        u16::from_be_bytes([reply[2], reply[3]])
    }

    /// Octets of the OPT record at the end; `None` if the additional section is empty.
    fn opt_of(reply: &[u8]) -> Option<&[u8]> {
        (reply[11] > 0).then(|| &reply[reply.len() - OPT_LENGTH..])
    }

    fn addresses(count: u8) -> Vec<(Section, Vec<u8>)> {
        (0..count).map(|last| address(Answer, 60, last)).collect()
    }

    #[test]
    fn the_copy_has_the_clients_id_and_spelling() {
        let response = stored(QR | RD | RA, &[address(Answer, 60, 1)]);
        let mut expected = answer(QR | RD | RA, &[address(Answer, 60, 1)]);
        expected[..2].copy_from_slice(&[0xab, 0xcd]);
        expected[12..21].copy_from_slice(b"\x07eXAMPLe\x00");
        assert_eq!(reply(&response, &query("eXAMPLe.", RD, None), PLAIN), expected);
    }

    #[test]
    fn rd_is_the_clients_and_the_rest_is_the_answers() {
        let response = stored(QR | AA | TC | RD | RA | CD | 3, &[]);
        assert_eq!(flags(&reply(&response, &query("example.", 0, None), PLAIN)), QR | AA | TC | RA | CD | 3);
        assert_eq!(flags(&reply(&response, &query("example.", RD, None), PLAIN)), QR | AA | TC | RD | RA | CD | 3);
    }

    #[test]
    fn ad_is_kept_for_a_client_that_sets_ad_or_do() {
        let response = stored(QR | AD, &[]);
        for (client, expected) in [
            (query("example.", 0, None), 0),
            (query("example.", 0, Some(false)), 0),
            (query("example.", AD, None), AD),
            (query("example.", 0, Some(true)), AD),
        ] {
            assert_eq!(flags(&reply(&response, &client, PLAIN)) & AD, expected);
        }
    }

    #[test]
    fn opt_is_there_only_if_the_client_sent_one_and_says_our_size_and_its_do() {
        let response = stored(QR, &[address(Additional, 60, 1), opt(0x8000)]);
        assert_eq!(listing(&reply(&response, &query("example.", 0, None), PLAIN)), ["Additional example. 60 A 4"]);
        for dnssec_ok in [false, true] {
            let reply = reply(&response, &query("example.", 0, Some(dnssec_ok)), PLAIN);
            assert_eq!(reply[11], 2);
            assert_eq!(opt_of(&reply), Some(&[0, 0, 41, 4, 208, 0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0][..]));
        }
    }

    #[test]
    fn a_client_whose_subnet_was_passed_on_gets_it_back_with_the_scope_within_its_limit() {
        let sent = ClientSubnet::UNTAILORED;
        let subnet = |scope| [0, 8, 0, 4, 0, 1, 0, scope];
        let client = query("example.", 0, Some(true));
        let with_subnet = |response: &Response, limit| {
            let mut out = Vec::new();
            let mut options = ReplyOptions::default();
            response.put_subnet(&sent, &mut options);
            response.write_with_options(&client.0, &client.1, ReplyShape { limit, ..PLAIN }, &options, &mut out);
            out
        };
        let response = stored(QR, &addresses(60));
        let length = QUESTION_END + 60 * 16 + OPT_LENGTH + 8;
        let whole = with_subnet(&response, length);
        assert_eq!((whole.len(), flags(&whole) & TC, whole[7], listing(&whole).len()), (length, 0, 60, 60));
        assert_eq!(whole[length - 19..], [&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 8][..], &subnet(0)].concat());
        let cut = with_subnet(&response, length - 1);
        assert_eq!((cut.len(), flags(&cut) & TC, cut[7]), (length - 16, TC, 59));
        assert!(with_subnet(&response, 512).len() <= 512);
        // Octet for octet what anybody else gets, but for the option.
        let plain = reply(&response, &client, PLAIN);
        assert_eq!(whole[..length - 10], plain[..plain.len() - 2]);
    }

    #[test]
    fn several_options_stand_one_after_another_in_a_record_that_fits_whatever_the_question() {
        let (mut options, mut out) = (ReplyOptions::default(), Vec::new());
        let response = stored(QR, &addresses(60));
        response.put_subnet(&ClientSubnet::UNTAILORED, &mut options);
        options.push_nsid(b"node-7");
        for (client, ends_with_them) in [(query("example.", 0, Some(false)), true), (query("example.", 0, None), false)]
        {
            out.clear();
            response.write_with_options(&client.0, &client.1, PLAIN, &options, &mut out);
            let tail = b"\0\0\x29\x04\xd0\0\0\0\0\0\x12\0\x08\0\x04\0\x01\0\0\0\x03\0\x06node-7";
            assert_eq!(out.ends_with(tail), ends_with_them);
        }
        let longest = format!("{0}.{0}.{0}.{1}.", "x".repeat(63), "y".repeat(61));
        let client = query(&longest, 0, Some(true));
        options.push_nsid(&[b'z'; 500]);
        out.clear();
        response.write_with_options(&client.0, &client.1, ReplyShape { limit: 512, ..PLAIN }, &options, &mut out);
        assert!(out.len() <= 512 && out[11] == 1, "{} octets", out.len());
    }

    #[test]
    fn an_extended_rcode_goes_into_opt_and_is_servfail_for_a_client_without() {
        let response = stored(QR | 7, &[opt(1 << 24)]);
        let with_opt = reply(&response, &query("example.", 0, Some(false)), PLAIN);
        assert_eq!((flags(&with_opt) & 0x0f, opt_of(&with_opt).unwrap()[5]), (7, 1));
        assert_eq!(flags(&reply(&response, &query("example.", 0, None), PLAIN)) & 0x0f, Rcode::SERVFAIL.0);
    }

    #[test]
    fn every_ttl_is_set_but_that_of_opt() {
        let response = stored(QR, &[address(Answer, 60, 1), address(Authority, 61, 2), address(Additional, 62, 3)]);
        let shape = ReplyShape { ttl: TtlRule::Set(5), ..PLAIN };
        let reply = reply(&response, &query("example.", 0, Some(true)), shape);
        assert_eq!(listing(&reply), ["Answer example. 5 A 4", "Authority example. 5 A 4", "Additional example. 5 A 4"]);
        assert_eq!(opt_of(&reply).unwrap()[5..9], [0, 0, 0x80, 0]);
    }

    #[test]
    fn an_answer_that_fills_the_limit_is_whole_and_one_octet_less_cuts_a_record() {
        let response = stored(QR, &addresses(60));
        let length = QUESTION_END + 60 * 16;
        for (client, opt_length) in [(query("example.", 0, None), 0), (query("example.", 0, Some(false)), OPT_LENGTH)] {
            let whole = reply(&response, &client, ReplyShape { limit: length + opt_length, ..PLAIN });
            assert_eq!((whole.len(), flags(&whole) & TC, whole[7]), (length + opt_length, 0, 60));
            let cut = reply(&response, &client, ReplyShape { limit: length + opt_length - 1, ..PLAIN });
            assert_eq!((cut.len(), flags(&cut) & TC, cut[7]), (length + opt_length - 16, TC, 59));
        }
    }

    #[test]
    fn a_cut_keeps_as_many_records_as_the_reference_keeps() {
        // Conformance: message/udp-answer-over-512-without-edns-is-truncated,
        // message/edns-size-lets-a-larger-answer-through.
        let mut upstream = answer(QR, &addresses(40));
        upstream.splice(12..12, *b"\x06medium");
        let response = Response::read(&upstream).unwrap();
        let kept = |client: (Query, Vec<u8>), limit| reply(&response, &client, ReplyShape { limit, ..PLAIN })[7];
        assert_eq!(kept(query("medium.example.", RD, None), 512), 30);
        assert_eq!(kept(query("medium.example.", RD, Some(false)), 512), 29);
        assert_eq!(kept(query("medium.example.", RD, Some(false)), 1232), 40);
    }

    #[test]
    fn records_after_the_first_that_does_not_fit_are_left_out_too() {
        let large = record(Authority, TO_QUESTION, RecordType::TXT.0, 60, &[0; 400]);
        let response =
            stored(QR, &[addresses(10), vec![large, address(Authority, 60, 1), address(Additional, 60, 2)]].concat());
        let cut = reply(&response, &query("example.", 0, Some(false)), ReplyShape { limit: 512, ..PLAIN });
        assert_eq!(cut[6..12], [0, 10, 0, 0, 0, 1]);
        assert_eq!(flags(&cut) & TC, TC);
        assert_eq!(listing(&cut).len(), 10);
    }

    #[test]
    fn the_sections_that_fit_are_kept_when_a_later_one_does_not() {
        let large = record(Additional, TO_QUESTION, RecordType::TXT.0, 60, &[0; 500]);
        let response =
            stored(QR, &[address(Answer, 60, 1), address(Authority, 60, 2), address(Additional, 60, 3), large]);
        let cut = reply(&response, &query("example.", 0, None), ReplyShape { limit: 512, ..PLAIN });
        assert_eq!((&cut[6..12], flags(&cut) & TC), (&[0, 1, 0, 1, 0, 1][..], TC));
    }

    #[test]
    fn ttls_of_a_cut_answer_are_set() {
        let response = stored(QR, &addresses(60));
        let shape = ReplyShape { ttl: TtlRule::Set(9), limit: 512, ..PLAIN };
        let cut = reply(&response, &query("example.", 0, None), shape);
        assert_eq!(listing(&cut), vec!["Answer example. 9 A 4"; 30]);
    }

    #[test]
    fn a_limit_below_512_counts_as_512() {
        let response = stored(QR, &addresses(60));
        let client = query("example.", 0, None);
        let least = reply(&response, &client, ReplyShape { limit: 0, ..PLAIN });
        assert_eq!(least, reply(&response, &client, ReplyShape { limit: 512, ..PLAIN }));
    }

    #[test]
    fn opt_does_not_push_an_answer_over_what_tcp_carries() {
        let count = (65_535 - QUESTION_END) / 16;
        let response = stored(QR, &vec![address(Answer, 60, 1); count]);
        let cut = reply(&response, &query("example.", 0, Some(false)), ReplyShape { limit: usize::MAX, ..PLAIN });
        assert!(cut.len() <= 65_535);
        assert_eq!(flags(&cut) & TC, TC);
    }

    #[test]
    fn another_name_in_the_question_leaves_the_records_as_they_were() {
        let response =
            stored(QR | AA | RA, &[address(Answer, 60, 1), record(Answer, TO_QUESTION, 5, 60, b"\x01a\xc0\x0c")]);
        for name in ["other.", "much.longer.Other.", "eXample.org.", "."] {
            let client = query(name, RD, Some(true));
            let reply = reply(&response, &client, PLAIN);
            assert_eq!(listing(&reply), ["Answer example. 60 A 4", "Answer example. 60 CNAME 4"], "{name}");
            assert_eq!(&reply[12..usize::from(client.0.question_end)], client.0.question(&client.1));
            assert_eq!(flags(&reply), QR | AA | RD | RA);
            assert_eq!(opt_of(&reply).map(|opt| opt[2]), Some(41));
        }
    }

    #[test]
    fn what_is_written_to_the_stored_question_is_what_is_written_to_any() {
        let response = stored(QR | RA, &addresses(60));
        for client in [query("eXAMPLe.", RD, None), query("example.", 0, Some(true))] {
            for limit in [512, 65_535] {
                let shape = ReplyShape { limit, ..PLAIN };
                let mut out = b"before".to_vec();
                response.write_to_its_question(&client.0, &client.1, shape, &mut out);
                assert_eq!(out.split_off(6), reply(&response, &client, shape));
            }
        }
    }

    #[test]
    fn another_name_of_the_same_length_leaves_the_records_as_they_were() {
        let response = stored(QR, &[address(Answer, 60, 1)]);
        let reply = reply(&response, &query("elpmaxe.", 0, None), PLAIN);
        assert_eq!(listing(&reply), ["Answer example. 60 A 4"]);
    }

    #[test]
    fn an_answer_that_has_no_room_under_a_longer_name_is_cut() {
        let count = (65_535 - QUESTION_END) / 16;
        let response = stored(QR, &vec![address(Answer, 60, 1); count]);
        let longer = format!("{0}.{0}.{0}.", "x".repeat(63));
        let cut = reply(&response, &query(&longer, 0, None), PLAIN);
        assert_eq!(flags(&cut) & TC, TC);
        assert!(Response::read(&cut).unwrap().answer_count() > count - 20);
    }

    #[test]
    fn a_query_that_belongs_to_other_octets_does_no_harm() {
        let response = stored(QR, &[address(Answer, 60, 1)]);
        let (query, _) = query("example.", RD, None);
        let mut out = Vec::new();
        response.write(&query, b"", PLAIN, &mut out);
        assert_eq!(listing(&out), ["Answer example. 60 A 4"]);
    }
}
