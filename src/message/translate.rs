//! Replies with IPv6 addresses that are made of a stored answer's IPv4 addresses (RFC 6147 section 5.1.7), without a
//! copy of the answer between.

use super::header::{OPCODE, RD, TC};
use super::opt::{self, OPT_LENGTH};
use super::reply::MIN_LIMIT;
use super::wire_reader::{HEADER_LENGTH, MAX_MESSAGE_LENGTH};
use super::{Class, Query, Rcode, RecordType, ReplyShape, Response, TtlRule};

/// Octets of a record before its data, whose owner is a pointer to the question.
const HEAD: usize = 12;
/// Octets of an A record, and of an AAAA record.
const V4_LENGTH: usize = HEAD + 4;
const V6_LENGTH: usize = HEAD + 16;

impl Response {
    /// Appends the reply to a client that asks for AAAA records of this answer's name, with one for each A record;
    /// `map` gives its address. `cleared`: flags of the answer that the reply does not have.
    ///
    /// False, and nothing is appended, if it has anything but A records of its question's name, or not all fit:
    /// [`super::edit_reply`] does the same with any reply.
    pub fn write_translated(
        &self,
        (query, wire): (&Query, &[u8]),
        reply: ReplyShape,
        cleared: u16,
        map: impl Fn([u8; 4]) -> [u8; 16],
        out: &mut Vec<u8>,
    ) -> bool {
        let parts = self.parts();
        let (flags, count) = (parts.header(1), usize::from(parts.header(3)));
        let records = parts.message.get(parts.question_end..).unwrap_or_default();
        let records = records.as_chunks::<V4_LENGTH>().0;
        let is_whole = parts.message.len() == parts.question_end + count * V4_LENGTH && parts.header(4) == 0;
        if count == 0
            || !is_whole
            || !records.iter().all(is_address)
            || flags & TC != 0
            || parts.rcode != Rcode::NOERROR
        {
            return false;
        }
        let (question, has_opt) = (query.question(wire), query.edns.is_some());
        let opt_length = if has_opt { OPT_LENGTH } else { 0 };
        let length = HEADER_LENGTH + question.len() + count * V6_LENGTH + opt_length;
        if length > reply.limit.clamp(MIN_LIMIT, MAX_MESSAGE_LENGTH) {
            return false;
        }
        let flags = flags & !(RD | cleared) | query.header.flags & (OPCODE | RD);
        let header = [query.header.id, flags, 1, count as u16, 0, has_opt.into()];
        out.reserve(length);
        let [id, flags, questions, answers, authorities, additionals] = header.map(u16::to_be_bytes);
        out.extend_from_slice([id, flags, questions, answers, authorities, additionals].as_flattened());
        out.extend_from_slice(question);
        for record in records {
            let [.., ttl1, ttl2, ttl3, ttl4, _, _, a, b, c, d] = *record;
            let ttl = match reply.ttl {
                TtlRule::Keep => [ttl1, ttl2, ttl3, ttl4],
                TtlRule::Set(seconds) => seconds.to_be_bytes(),
            };
            out.extend_from_slice(&v6_record(ttl, map([a, b, c, d])));
        }
        if let Some(edns) = query.edns {
            out.extend_from_slice(&opt::encode(reply.udp_size, 0, edns.dnssec_ok));
        }
        true
    }
}

/// True of an A record of the question's name.
fn is_address(record: &[u8; V4_LENGTH]) -> bool {
    let [owner_high, owner_low, type_high, type_low, class_high, class_low, _, _, _, _, length_high, length_low, ..] =
        *record;
    [owner_high, owner_low] == [0xc0, HEADER_LENGTH as u8]
        && [type_high, type_low] == RecordType::A.0.to_be_bytes()
        && [class_high, class_low] == Class::IN.0.to_be_bytes()
        && [length_high, length_low] == [0, 4]
}

/// An AAAA record of the question's name.
#[inline]
pub(super) fn v6_record([ttl1, ttl2, ttl3, ttl4]: [u8; 4], address: [u8; 16]) -> [u8; V6_LENGTH] {
    let mut record = [0; V6_LENGTH];
    let [type_high, type_low] = RecordType::AAAA.0.to_be_bytes();
    let [class_high, class_low] = Class::IN.0.to_be_bytes();
    let head = [0xc0, 12, type_high, type_low, class_high, class_low, ttl1, ttl2, ttl3, ttl4, 0, 16];
    record[..HEAD].copy_from_slice(&head);
    record[HEAD..].copy_from_slice(&address);
    record
}

#[cfg(test)]
mod tests {
    use super::super::Section::{Additional, Answer, Authority};
    use super::super::edit_reply;
    use super::super::fixtures::{Mapped, TO_QUESTION, address, answer, listing, query, record};
    use super::super::header::{AA, AD, QR, RA};
    use super::*;

    const CLEARED: u16 = AA | AD | RA;

    /// A client's question for AAAA records, and the one for A records in its place.
    fn questions(name: &str, opt: Option<bool>) -> [(Query, Vec<u8>); 2] {
        let (v4, wire) = query(name, RD, opt);
        let mut v6_wire = wire.clone();
        let at = usize::from(v4.question_end) - 3;
        v6_wire[at] = 28;
        [(Query::read(&v6_wire).unwrap(), v6_wire), (v4, wire)]
    }

    fn translated(response: &Response, client: &(Query, Vec<u8>), limit: usize) -> Option<Vec<u8>> {
        let shape = ReplyShape { ttl: TtlRule::Set(9), limit, udp_size: 1232 };
        let mut out = b"before".to_vec();
        let is_written = response.write_translated((&client.0, &client.1), shape, CLEARED, Mapped::address, &mut out);
        assert_eq!(is_written, out.len() > 6);
        is_written.then(|| out.split_off(6))
    }

    #[test]
    fn it_is_what_is_made_of_a_reply_with_the_ipv4_addresses() {
        let response =
            Response::read(&answer(QR | AA | AD | RA | RD, &[address(Answer, 60, 1), address(Answer, 60, 2)]));
        let response = response.unwrap();
        for opt in [None, Some(false), Some(true)] {
            let [v6, v4] = questions("eXample.", opt);
            let shape = ReplyShape { ttl: TtlRule::Set(9), limit: 1232, udp_size: 1232 };
            let mut edited = Vec::new();
            response.write(&v4.0, &v4.1, shape, &mut edited);
            edit_reply((&v6.0, &v6.1), &v4.0.name, &Mapped, 1232, &mut edited, 0).unwrap();
            let flags = u16::from_be_bytes([edited[2], edited[3]]) & !CLEARED;
            edited[2..4].copy_from_slice(&flags.to_be_bytes());
            assert_eq!(translated(&response, &v6, 1232), Some(edited));
        }
    }

    #[test]
    fn answers_with_anything_else_or_without_room_are_left_to_others() {
        let [client, _] = questions("example.", None);
        let alias = record(Answer, TO_QUESTION, 5, 30, b"\x01a\xc0\x0c");
        let of_other = record(Answer, b"\x01b\xc0\x0c", 1, 60, &[192, 0, 2, 1]);
        let others = [
            (QR, vec![]),
            (QR | 3, vec![address(Answer, 60, 1)]),
            (QR | TC, vec![address(Answer, 60, 1)]),
            (QR, vec![alias, address(Answer, 60, 1)]),
            (QR, vec![of_other]),
            (QR, vec![address(Answer, 60, 1), address(Authority, 60, 1)]),
            (QR, vec![address(Answer, 60, 1), address(Additional, 60, 1)]),
        ];
        for (flags, records) in others {
            assert_eq!(
                translated(&Response::read(&answer(flags, &records)).unwrap(), &client, 1232),
                None,
                "{records:?}"
            );
        }
        let many: Vec<_> = (0..20).map(|last| address(Answer, 60, last)).collect();
        let many = Response::read(&answer(QR, &many)).unwrap();
        let length = usize::from(client.0.question_end) + 20 * V6_LENGTH;
        assert_eq!(translated(&many, &client, length).map(|reply| listing(&reply).len()), Some(20));
        assert_eq!(translated(&many, &client, length - 1), None);
    }
}
