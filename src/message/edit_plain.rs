//! Quick ways to change a reply whose records are all of the question's name and have no other names: nearly every
//! reply with addresses. Where one is not like that, [`super::edit_reply`] writes it anew.

use super::editor::Edit;
use super::translate::v6_record;
use super::wire_reader::HEADER_LENGTH;
use super::{Class, LowerName, Query, Rcode, RecordType, layout, opt};

/// Octets of a record before its data, whose owner is a pointer to the question.
const HEAD: usize = 12;

/// Such a reply, taken apart.
struct Plain {
    /// Records of the three sections, OPT not among them.
    counts: [usize; 3],
    /// Offsets in the reply.
    question_end: usize,
    records_end: usize,
    /// All records are A records of class IN.
    has_v4_alone: bool,
}

/// Changes the reply that stands in `reply` from `start` on, as [`super::edit_reply`] does. False, and nothing is
/// changed, if it is to be done there.
#[inline]
pub(super) fn edit_plain(
    (query, wire): (&Query, &[u8]),
    asked: &LowerName,
    edit: &impl Edit,
    limit: usize,
    reply: &mut Vec<u8>,
    start: usize,
) -> bool {
    let message = reply.get(start..).unwrap_or_default();
    // Owners point to the question, so they become what that is.
    let name_end = HEADER_LENGTH + asked.as_wire().len();
    if message.get(HEADER_LENGTH..name_end) != Some(asked.as_wire()) || !edit.restores(asked, &query.name) {
        return false;
    }
    let Some(plain) = Plain::of(message, name_end + 4, query.edns.is_some()) else { return false };
    let makes_addresses = edit.address(0, [0; 4]).is_some();
    let added = if makes_addresses { plain.counts[0] * (V6_LENGTH - V4_LENGTH) } else { 0 };
    let question = query.question(wire);
    let length = message.len() + added + HEADER_LENGTH + question.len() - plain.question_end;
    if length > limit || makes_addresses && !plain.has_v4_alone {
        return false;
    }
    if makes_addresses {
        make_addresses(&plain, edit, reply, start);
    } else if !edit.keeps_ttls() {
        set_ttls(&plain, edit, reply, start);
    }
    replace_question(&plain, question, reply, start);
    if let Some(code) = reply.get_mut(start + 3) {
        *code = *code & 0xf0 | edit.rcode(Rcode(u16::from(*code & 0x0f))).0 as u8 & 0x0f;
    }
    true
}

impl Plain {
    #[inline]
    fn of(message: &[u8], question_end: usize, has_opt: bool) -> Option<Self> {
        let [_, _, _, _, _, _, a, b, c, d, e, f] = *message.first_chunk::<HEADER_LENGTH>()?;
        let [answers, authorities, additionals] = [[a, b], [c, d], [e, f]].map(|n| usize::from(u16::from_be_bytes(n)));
        let counts = [answers, authorities, additionals.checked_sub(has_opt.into())?];
        let (mut at, mut has_v4_alone) = (question_end, counts[1..] == [0, 0]);
        for _ in 0..counts.iter().sum() {
            let head: &[u8; HEAD] = message.get(at..)?.first_chunk()?;
            let [0xc0, 0x0c, type_high, type_low, class_high, class_low, .., length_high, length_low] = *head else {
                return None;
            };
            let rtype = RecordType(u16::from_be_bytes([type_high, type_low]));
            let class = Class(u16::from_be_bytes([class_high, class_low]));
            let length = usize::from(u16::from_be_bytes([length_high, length_low]));
            if (rtype, class, length) != (RecordType::A, Class::IN, 4) {
                has_v4_alone = false;
                if layout::of(rtype, class).names > 0 {
                    return None;
                }
            }
            at += HEAD + length;
        }
        let rest = message.get(at..)?;
        let is_end = if has_opt { opt::is_one(rest) } else { rest.is_empty() };
        is_end.then_some(Self { counts, question_end, records_end: at, has_v4_alone })
    }
}

#[inline]
fn set_ttls(plain: &Plain, edit: &impl Edit, reply: &mut [u8], start: usize) {
    let records = reply.get_mut(start + plain.question_end..start + plain.records_end).unwrap_or_default();
    let mut at = 0;
    while let Some(head) = records.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<HEAD>) {
        let [.., ttl1, ttl2, ttl3, ttl4, length_high, length_low] = head;
        let seconds = u32::from_be_bytes([*ttl1, *ttl2, *ttl3, *ttl4]);
        [*ttl1, *ttl2, *ttl3, *ttl4] = edit.ttl(seconds).to_be_bytes();
        at += HEAD + usize::from(u16::from_be_bytes([*length_high, *length_low]));
    }
}

/// Octets of an A and of an AAAA record.
const V4_LENGTH: usize = HEAD + 4;
const V6_LENGTH: usize = HEAD + 16;

/// Puts an AAAA record into the place of each A record. They are written behind the reply, and then moved: a vector
/// grows octet by octet otherwise.
#[inline]
fn make_addresses(plain: &Plain, edit: &impl Edit, reply: &mut Vec<u8>, start: usize) {
    let (end, records) = (reply.len(), start + plain.question_end);
    for index in 0..plain.counts[0] {
        let from = records + index * V4_LENGTH;
        let Some(record) = reply.get(from..).and_then(<[u8]>::first_chunk::<V4_LENGTH>) else { return };
        let [.., ttl1, ttl2, ttl3, ttl4, _, _, a, b, c, d] = *record;
        let seconds = u32::from_be_bytes([ttl1, ttl2, ttl3, ttl4]);
        let Some((seconds, address)) = edit.address(seconds, [a, b, c, d]) else { return };
        reply.extend_from_slice(&v6_record(seconds.to_be_bytes(), address));
    }
    reply.extend_from_within(start + plain.records_end..end);
    reply.copy_within(end.., records);
    reply.truncate(reply.len() - (end - records));
}

/// Puts the client's question into the place of the one there is.
#[inline]
fn replace_question(plain: &Plain, question: &[u8], reply: &mut Vec<u8>, start: usize) {
    let (from, end) = (start + plain.question_end, reply.len());
    let to = start + HEADER_LENGTH + question.len();
    if to > from {
        // At least as many as it grows by.
        reply.extend_from_slice(question);
    }
    if to != from {
        reply.copy_within(from..end, to);
        reply.truncate(end + to - from);
    }
    if let Some(place) = reply.get_mut(start + HEADER_LENGTH..to) {
        place.copy_from_slice(question);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Section;
    use super::super::fixtures::{Mapped, TO_QUESTION, address, answer, listing, opt, query, record};
    use super::super::header::{QR, RD};
    use super::*;
    use Section::{Additional, Answer, Authority};

    /// The question's name becomes `to`, and TTLs 7.
    struct Renamed(&'static str);

    impl Edit for Renamed {
        fn owner(&self, name: &LowerName) -> Option<LowerName> {
            (name.to_string() == "example.").then(|| LowerName::parse(self.0).unwrap())
        }
        fn value(&self, _name: &LowerName) -> Option<LowerName> {
            None
        }
        fn ttl(&self, _seconds: u32) -> u32 {
            7
        }
        fn rcode(&self, rcode: Rcode) -> Rcode {
            if rcode == Rcode::NXDOMAIN { Rcode::NOERROR } else { rcode }
        }
    }

    fn edited(edit: &impl Edit, name: &str, records: &[(Section, Vec<u8>)], limit: usize) -> (bool, Vec<u8>) {
        let has_opt = records.iter().any(|(_, record)| record.starts_with(&[0, 0, 41]));
        let client = query(name, RD, has_opt.then_some(false));
        let mut reply = [&b"before"[..], &answer(QR | 3, records)].concat();
        let before = reply.clone();
        let asked = LowerName::parse("example.").unwrap();
        let is_edited = edit_plain((&client.0, &client.1), &asked, edit, limit, &mut reply, 6);
        assert!(reply.starts_with(b"before") && (is_edited || reply == before));
        (is_edited, reply.split_off(6))
    }

    #[test]
    fn records_stay_where_they_are_under_a_shorter_a_longer_and_an_equally_long_name() {
        for name in ["a.", "Elpmaxe.", "much.longer.example."] {
            let renamed = &Renamed(name);
            for opt in [None, Some(opt(0))] {
                let records =
                    [vec![address(Answer, 60, 1), address(Authority, 61, 2)], opt.into_iter().collect()].concat();
                let (is_edited, reply) = edited(renamed, name, &records, 512);
                assert!(is_edited, "{name}");
                let name = LowerName::parse(name).unwrap();
                assert_eq!(listing(&reply)[..2], [format!("Answer {name} 7 A 4"), format!("Authority {name} 7 A 4")]);
                assert_eq!(reply[3] & 0x0f, 0);
            }
        }
    }

    #[test]
    fn each_address_becomes_one_of_the_other_family() {
        let records = [address(Answer, 60, 1), address(Answer, 61, 2), opt(0)];
        let (is_edited, reply) = edited(&Mapped, "example.", &records, 512);
        assert!(is_edited);
        assert_eq!(listing(&reply)[..2], ["Answer example. 9 AAAA 16"; 2]);
        assert!(reply.ends_with(&[&[2; 16][..], &opt(0).1].concat()));
    }

    #[test]
    fn what_is_not_plain_or_does_not_fit_is_left_to_who_writes_it_anew() {
        let rename = |records: &[(Section, Vec<u8>)], limit| edited(&Renamed("a."), "a.", records, limit).0;
        assert!(rename(&[address(Answer, 60, 1)], 512));
        for records in [
            [record(Answer, TO_QUESTION, 5, 30, b"\x01a\xc0\x0c"), address(Answer, 60, 1)],
            [record(Answer, b"\x01b\x00", 1, 30, &[0; 4]), address(Answer, 60, 1)],
        ] {
            assert!(!rename(&records, 512), "{records:?}");
        }
        let length = answer(QR, &[address(Answer, 60, 1)]).len();
        let longer = |limit| edited(&Renamed("another."), "another.", &[address(Answer, 60, 1)], limit).0;
        assert!(longer(length) && !longer(length - 1));
        // The client asked for another name than the one that the owner becomes.
        assert!(!edited(&Renamed("a."), "b.", &[address(Answer, 60, 1)], 512).0);
        let map = |records: &[(Section, Vec<u8>)], limit| edited(&Mapped, "example.", records, limit).0;
        assert!(map(&[address(Answer, 60, 1)], length + 12) && !map(&[address(Answer, 60, 1)], length + 11));
        assert!(!map(&[address(Answer, 60, 1), address(Additional, 60, 1)], 512));
    }
}
