//! Rewrites names and TTLs of a reply that is given under another question than the client asked: what a directive that
//! rewrites requests does to what comes back. It goes from octets to octets in one pass and takes nothing from the
//! heap, so that cache hits pass through it too.

use super::edit_plain::edit_plain;
use super::editor::Edit;
use super::header::TC;
use super::layout;
use super::reply_records::opt_of;
use super::response::Response;
use super::wire_reader::{HEADER_LENGTH, MAX_MESSAGE_LENGTH, Suffixes, u16_at, u32_at, walk_name};
use super::{Class, LowerName, Query, Rcode, RecordType, WireError, work};
use smallvec::SmallVec;
use std::cell::Cell;

/// Types in whose data a name may be changed: CNAME, DNAME, MX, NAPTR, NS, PTR, SOA, SRV.
const WITH_VALUE: [u16; 8] = [5, 39, 15, 35, 2, 12, 6, 33];

/// Changes the reply that stands in `reply` from `start` on, as the rest of a chain has written it for another question
/// than this client's, about the name `asked`: at most `limit` octets, and TC where a record did not fit. Its OPT
/// record, if the client sent one, is the last. Codes above 15 are not for this.
///
/// # Errors
/// The reply is malformed, which none is that was written here; it is left as it was.
pub fn edit_reply(
    (query, wire): (&Query, &[u8]),
    asked: &LowerName,
    edit: &impl Edit,
    limit: usize,
    reply: &mut Vec<u8>,
    start: usize,
) -> Result<(), WireError> {
    if edit_plain((query, wire), asked, edit, limit, reply, start) {
        return Ok(());
    }
    edit_anew((query, wire), edit, limit, reply, start)
}

/// [`edit_reply`] for whatever reply: all names are written anew.
fn edit_anew(
    (query, wire): (&Query, &[u8]),
    edit: &impl Edit,
    limit: usize,
    reply: &mut Vec<u8>,
    start: usize,
) -> Result<(), WireError> {
    let end = reply.len();
    let opt_length = if query.edns.is_some() { opt_length(&reply[start..])? } else { 0 };
    // What is written stands behind what is read, and then takes its place.
    match write(reply, (start, end), opt_length, query.question(wire), edit, limit) {
        Ok(()) => {
            let rcode = edit.rcode(Rcode(u16::from(reply[end + 3] & 0x0f)));
            reply[end + 3] = reply[end + 3] & 0xf0 | rcode.0 as u8 & 0x0f;
            reply.copy_within(end.., start);
            reply.truncate(reply.len() - (end - start));
            Ok(())
        }
        Err(error) => {
            reply.truncate(end);
            Err(error)
        }
    }
}

/// Octets of the OPT record at the end of a reply.
fn opt_length(reply: &[u8]) -> Result<usize, WireError> {
    let question_end = walk_name(reply, HEADER_LENGTH, |_| ())? + 4;
    let opt = opt_of(reply, question_end)?;
    if !opt.is_empty() && reply.ends_with(opt) { Ok(opt.len()) } else { Err(WireError::BadRecord(question_end)) }
}

impl Response {
    /// This answer, changed, as one to the client's question.
    ///
    /// # Errors
    /// Those of [`Response::read`], which no answer has that was read before.
    pub fn edited(&self, query: &Query, wire: &[u8], edit: &impl Edit) -> Result<Self, WireError> {
        let mut octets = Vec::with_capacity(2 * self.wire().len() + query.question(wire).len());
        octets.extend_from_slice(self.wire());
        let end = octets.len();
        write(&mut octets, (0, end), 0, query.question(wire), edit, MAX_MESSAGE_LENGTH)?;
        let mut edited = Self::read(octets.get(end..).unwrap_or_default())?;
        edited.copy_origin(self);
        edited.replace_rcode(edit.rcode(self.rcode()));
        Ok(edited)
    }
}

/// Names that may be pointed to, beside the question's: so few that each name costs a bounded search.
const MOST_KNOWN: usize = 48;
/// Labels that may be compared for one message. A reply of usual names takes a fraction; once they are spent, names are
/// written out, so that a reply that is made to be dear costs no more than half a millisecond.
const MOST_STEPS: u32 = 50_000;
/// Offsets that a pointer's 14 bits reach (RFC 1035 section 4.1.4).
const POINTER_REACH: usize = 0x4000;

/// Appends to `octets` the message that stands in `from..to` of it, changed.
fn write(
    octets: &mut Vec<u8>,
    (from, to): (usize, usize),
    opt_length: usize,
    question: &[u8],
    edit: &impl Edit,
    limit: usize,
) -> Result<(), WireError> {
    let message = octets.get(from..to).unwrap_or_default();
    let mut counts = [u16_at(message, 6)?, u16_at(message, 8)?, u16_at(message, 10)?];
    let records_end = message.len().checked_sub(opt_length).ok_or(WireError::Short(0))?;
    counts[2] = counts[2].checked_sub(u16::from(opt_length > 0)).ok_or(WireError::Short(0))?;
    let name_end = walk_name(message, HEADER_LENGTH, |_| ())?;
    octets.reserve(to - from + question.len() + 64);
    octets.extend_from_within(from..from + HEADER_LENGTH);
    octets.extend_from_slice(question);

    let question_end = HEADER_LENGTH + question.len();
    let mut writer =
        Writer { octets, from, to, question_end, known: SmallVec::new(), steps: Cell::new(MOST_STEPS), asked: None };
    let mut kept = [0_u16; 3];
    let mut at = name_end + 4;
    let mut is_cut = false;
    'sections: for (section, count) in counts.into_iter().enumerate() {
        for _ in 0..count {
            let before = writer.octets.len();
            at = writer.record(at, section == 0, edit)?;
            if writer.octets.len() - to + opt_length > limit {
                writer.octets.truncate(before);
                is_cut = true;
                break 'sections;
            }
            kept[section] += 1;
        }
    }
    if at > records_end {
        return Err(WireError::Short(at));
    }
    octets.extend_from_within(from + records_end..to);
    kept[2] += u16::from(opt_length > 0);
    for (place, count) in [6, 8, 10].into_iter().zip(kept) {
        octets[to + place..to + place + 2].copy_from_slice(&count.to_be_bytes());
    }
    if is_cut {
        octets[to + 2] |= (TC >> 8) as u8;
    }
    Ok(())
}

/// Reads the message in `from..to` and writes another behind it.
struct Writer<'a> {
    octets: &'a mut Vec<u8>,
    from: usize,
    to: usize,
    /// In what is written.
    question_end: usize,
    /// Offsets in what is written at which a name, or the rest of one, begins.
    known: SmallVec<[u16; MOST_KNOWN]>,
    /// What is left of [`MOST_STEPS`].
    steps: Cell<u32>,
    /// Where the owner was written that stands for the question's name in what is read: most owners do, and are changed
    /// alike.
    asked: Option<u16>,
}

impl Writer<'_> {
    fn message(&self) -> &[u8] {
        self.octets.get(self.from..self.to).unwrap_or_default()
    }

    /// One record, from its owner's offset; gives the offset after it.
    fn record(&mut self, at: usize, is_answer: bool, edit: &impl Edit) -> Result<usize, WireError> {
        let fixed = self.owner(at, edit)?;
        let message = self.message();
        let (rtype, class) = (RecordType(u16_at(message, fixed)?), Class(u16_at(message, fixed + 2)?));
        let (ttl, length) = (u32_at(message, fixed + 4)?, usize::from(u16_at(message, fixed + 8)?));
        let data = fixed + 10;
        let end = data + length;
        if end > message.len() {
            return Err(WireError::Short(data));
        }
        if is_answer
            && (rtype, class, length) == (RecordType::A, Class::IN, 4)
            && let Some(address) = message.get(data..).and_then(<[u8]>::first_chunk)
            && let Some((ttl, address)) = edit.address(ttl, *address)
        {
            self.octets.extend_from_slice(&RecordType::AAAA.0.to_be_bytes());
            self.octets.extend_from_slice(&Class::IN.0.to_be_bytes());
            self.octets.extend_from_slice(&ttl.to_be_bytes());
            self.octets.extend_from_slice(&(address.len() as u16).to_be_bytes());
            self.octets.extend_from_slice(&address);
            return Ok(end);
        }
        let head = self.from + fixed;
        self.octets.extend_from_within(head..head + 4);
        self.octets.extend_from_slice(&edit.ttl(ttl).to_be_bytes());
        self.octets.extend_from_within(head + 8..head + 10);
        let written = self.octets.len();
        let layout = layout::of(rtype, class);
        if layout.names == 0 {
            self.octets.extend_from_within(self.from + data..self.from + end);
            return Ok(end);
        }
        let mut next = data + usize::from(layout.fixed);
        for _ in 0..layout.strings {
            next += 1 + usize::from(*self.message().get(next).ok_or(WireError::BadRecord(at))?);
        }
        if next > end {
            return Err(WireError::BadRecord(at));
        }
        self.octets.extend_from_within(self.from + data..self.from + next);
        for index in 0..layout.names {
            let (name, after) = self.read_name(next)?;
            let changed = if index == 0 && WITH_VALUE.contains(&rtype.0) { edit.value(&lower(&name)) } else { None };
            self.put_name(changed.as_ref().map_or(&name, LowerName::as_wire), layout.compressible);
            next = after;
        }
        if next > end {
            return Err(WireError::BadRecord(at));
        }
        self.octets.extend_from_within(self.from + next..self.from + end);
        let length = u16::try_from(self.octets.len() - written).map_err(|_| WireError::TooLong)?;
        self.octets[written - 2..written].copy_from_slice(&length.to_be_bytes());
        Ok(end)
    }

    /// Writes a record's owner; gives the offset after it in what is read.
    fn owner(&mut self, at: usize, edit: &impl Edit) -> Result<usize, WireError> {
        let is_asked = self.message().get(at..at + 2) == Some(&[0xc0, HEADER_LENGTH as u8]);
        if is_asked && let Some(offset) = self.asked {
            self.octets.extend_from_slice(&(0xc000 | offset).to_be_bytes());
            return Ok(at + 2);
        }
        let (name, after) = self.read_name(at)?;
        let changed = edit.owner(&lower(&name));
        let offset = self.put_name(changed.as_ref().map_or(&name, LowerName::as_wire), true);
        if is_asked && offset < POINTER_REACH {
            self.asked = Some(offset as u16);
        }
        Ok(after)
    }

    /// The name at an offset of what is read, written out.
    fn read_name(&self, at: usize) -> Result<(SmallVec<[u8; 256]>, usize), WireError> {
        let message = self.message();
        let mut name = SmallVec::new();
        let after = walk_name(message, at, |labels| name.extend_from_slice(message.get(labels).unwrap_or_default()))?;
        name.push(0);
        Ok((name, after))
    }

    /// Writes a name; gives the offset at which it, or the name that it is a pointer to, stands.
    fn put_name(&mut self, name: &[u8], compress: bool) -> usize {
        let begin = self.octets.len() - self.to;
        for suffix in Suffixes(name) {
            let at = self.octets.len() - self.to;
            if suffix.len() > 1 {
                if compress && let Some(offset) = self.find(suffix) {
                    self.octets.extend_from_slice(&(0xc000 | offset).to_be_bytes());
                    return if at == begin { usize::from(offset) } else { begin };
                }
                if at < POINTER_REACH && self.known.len() < MOST_KNOWN {
                    self.known.push(at as u16);
                }
            }
            let label = usize::from(suffix[0]) + 1;
            self.octets.extend_from_slice(&suffix[..label]);
        }
        begin
    }

    /// Takes one step, for so many octets at most; false if none is left.
    fn step(&self, octets: usize) -> bool {
        work::count();
        let left = self.steps.get().checked_sub(1 + octets as u32 / 32);
        self.steps.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Where a name has been written before: in the question, whatever its case, or in a record, spelt the same.
    fn find(&self, name: &[u8]) -> Option<u16> {
        let written = self.octets.get(self.to..)?;
        let mut at = HEADER_LENGTH;
        while let Some(length @ 1..) = written.get(at).copied() {
            if !self.step(name.len()) {
                return None;
            }
            let end = at + name.len();
            if written.get(at..end).is_some_and(|there| there.eq_ignore_ascii_case(name)) {
                return Some(at as u16);
            }
            at += usize::from(length) + 1;
        }
        self.known.iter().copied().find(|offset| self.is_at(usize::from(*offset), name))
    }

    /// True if the name at this offset of what is written, which may end in a pointer, is this one: spelt the same, but
    /// for what stands in the question.
    fn is_at(&self, mut at: usize, mut name: &[u8]) -> bool {
        let written = self.octets.get(self.to..).unwrap_or_default();
        while self.step(0) {
            match written.get(at).copied() {
                Some(0) => return name == [0],
                Some(length @ 1..=63) => {
                    let end = usize::from(length) + 1;
                    let (Some(label), Some((head, rest))) = (written.get(at..at + end), name.split_at_checked(end))
                    else {
                        return false;
                    };
                    if label != head && !(at < self.question_end && label.eq_ignore_ascii_case(head)) {
                        return false;
                    }
                    (name, at) = (rest, at + end);
                }
                Some(_) => match u16_at(written, at) {
                    // Pointers go back, so this ends.
                    Ok(pointer) if usize::from(pointer & 0x3fff) < at => at = usize::from(pointer & 0x3fff),
                    _ => return false,
                },
                None => return false,
            }
        }
        false
    }
}

fn lower(name: &[u8]) -> LowerName {
    LowerName::from_wire(name)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{TO_QUESTION, address, answer, listing, query, record};
    use super::super::header::{QR, RD};
    use super::super::{Name, ReplyShape, Section, TtlRule};
    use super::*;
    use Section::{Additional, Answer, Authority};

    /// `example.` and what is below it becomes `client.test.`, in owners and values; TTLs are 7, NXDOMAIN is NOERROR.
    struct Renamed;

    impl Renamed {
        fn rename(name: &LowerName) -> Option<LowerName> {
            let text = name.text();
            let before =
                text.as_str().strip_suffix("example.").filter(|before| before.is_empty() || before.ends_with('.'))?;
            LowerName::parse(&format!("{before}client.test.")).ok()
        }
    }

    impl Edit for Renamed {
        fn owner(&self, name: &LowerName) -> Option<LowerName> {
            Self::rename(name)
        }
        fn value(&self, name: &LowerName) -> Option<LowerName> {
            Self::rename(name)
        }
        fn ttl(&self, _seconds: u32) -> u32 {
            7
        }
        fn rcode(&self, rcode: Rcode) -> Rcode {
            if rcode == Rcode::NXDOMAIN { Rcode::NOERROR } else { rcode }
        }
    }

    fn example() -> LowerName {
        LowerName::parse("example.").unwrap()
    }

    #[test]
    fn a_reply_that_is_changed_in_place_is_the_one_that_is_written_anew() {
        for records in [vec![address(Answer, 60, 1)], vec![address(Answer, 60, 1), address(Authority, 61, 2)], vec![]] {
            for (name, limit) in [("client.test.", 512), ("Client.Test.", 65_535)] {
                let client = query(name, RD, None);
                let [mut quick, mut anew] = [(); 2].map(|()| [&b"before"[..], &answer(QR | 3, &records)].concat());
                let both = (&client.0, &client.1[..]);
                assert!(edit_plain(both, &example(), &Renamed, limit, &mut quick, 6), "{name}");
                edit_anew(both, &Renamed, limit, &mut anew, 6).unwrap();
                assert_eq!(quick, anew, "{name}");
            }
        }
    }

    fn stored(flags: u16, records: &[(Section, Vec<u8>)]) -> Response {
        Response::read(&answer(flags, records)).unwrap()
    }

    /// What both ways give a client that asks for this name, where the chain was asked for `example.`.
    fn both(response: &Response, client: &(Query, Vec<u8>), limit: usize) -> Vec<u8> {
        let shape = ReplyShape { ttl: TtlRule::Keep, limit, udp_size: 1232 };
        let inner = query("example.", RD, client.0.edns.map(|edns| edns.dnssec_ok));
        let mut quick = b"before".to_vec();
        response.write(&inner.0, &inner.1, shape, &mut quick);
        edit_reply((&client.0, &client.1), &example(), &Renamed, limit, &mut quick, 6).unwrap();
        assert!(quick.starts_with(b"before"));
        let mut slow = Vec::new();
        response.edited(&client.0, &client.1, &Renamed).unwrap().write(&client.0, &client.1, shape, &mut slow);
        assert_eq!(listing(&quick[6..]), listing(&slow));
        assert_eq!(quick[6..18], slow[..12]);
        quick.split_off(6)
    }

    fn many() -> Vec<(Section, Vec<u8>)> {
        vec![
            record(Answer, TO_QUESTION, 5, 30, b"\x01a\xc0\x0c"),
            record(Answer, b"\x01a\xc0\x0c", 1, 31, &[192, 0, 2, 1]),
            record(Answer, TO_QUESTION, 33, 31, b"\0\0\0\0\0\x05\x01b\x07example\0"),
            record(Authority, TO_QUESTION, 6, 32, &[&b"\x02ns\xc0\x0c\x04host\xc0\x0c"[..], &[0; 20]].concat()),
            record(Authority, b"\x05Other\x04test\0", 2, 32, b"\x02NS\x05Other\x04test\0"),
            record(Additional, b"\x02ns\xc0\x0c", 28, 33, &[0; 16]),
        ]
    }

    #[test]
    fn owners_values_ttls_and_the_code_are_changed_and_other_names_stay() {
        for opt in [None, Some(true)] {
            let reply = both(&stored(QR | 3, &many()), &query("Client.Test.", RD, opt), 65_535);
            assert_eq!(reply[3] & 0x0f, 0);
            assert_eq!(
                listing(&reply),
                [
                    "Answer client.test. 7 CNAME 4",
                    "Answer a.client.test. 7 A 4",
                    "Answer client.test. 7 SRV 21",
                    "Authority client.test. 7 SOA 39",
                    "Authority Other.test. 7 NS 5",
                    "Additional ns.client.test. 7 AAAA 16"
                ]
            );
            // The question's spelling is the client's, and the owners that are its name point there.
            assert_eq!(reply[12..25], *b"\x06Client\x04Test\0");
            let response = Response::read(&reply).unwrap();
            let records: Vec<_> = response.records().collect();
            assert!(records[0].points_to_question());
            let values: Vec<String> =
                records.iter().flat_map(|record| record.data().unwrap().names).map(|name| name.to_string()).collect();
            let host = "host.example.";
            assert_eq!(values, ["a.client.test.", "b.client.test.", "ns.client.test.", host, "NS.Other.test."]);
        }
    }

    #[test]
    fn a_reply_that_grows_beyond_the_limit_is_cut_and_keeps_opt() {
        let addresses: Vec<_> = (0..60).map(|last| address(Answer, 60, last)).collect();
        let response = stored(QR, &addresses);
        let whole = both(&response, &query("client.test.", RD, Some(false)), 65_535).len();
        for limit in [whole - 1, 512, 700] {
            let cut = both(&response, &query("client.test.", RD, Some(false)), limit);
            assert!(cut.len() <= limit && cut[2] & 2 != 0 && cut[11] == 1, "{limit}");
            assert_eq!(listing(&cut).len(), usize::from(cut[7]));
        }
    }

    #[test]
    fn names_without_number_are_written_whole_and_read_back() {
        let names: Vec<_> = (0..300_u16)
            .map(|index| {
                let label = format!("n{index}");
                let owner = [&[label.len() as u8], label.as_bytes(), TO_QUESTION].concat();
                record(Answer, &owner, 1, 60, &[192, 0, 2, 1])
            })
            .collect();
        let reply = both(&stored(QR, &names), &query("client.test.", RD, None), 65_535);
        let owners: Vec<String> =
            listing(&reply).iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
        assert_eq!(owners, (0..300).map(|index| format!("n{index}.client.test.")).collect::<Vec<_>>());
    }

    /// Names whose every rest is compared with many others that begin alike: in data, and as owners.
    fn dear() -> [Vec<(Section, Vec<u8>)>; 2] {
        let name = |number: usize| {
            let digits = format!("{number:03}");
            [&b"\x01a".repeat(100)[..], &[3], digits.as_bytes(), b"\x02mx\x01z\0"].concat()
        };
        let exchange = |number| record(Answer, TO_QUESTION, 15, 60, &[&[0, 10][..], &name(number)].concat());
        let owner = |number| record(Answer, &name(number), 1, 60, &[192, 0, 2, 1]);
        [(0..240).map(exchange).collect(), (0..240).map(owner).collect()]
    }

    #[test]
    fn a_reply_that_is_made_to_be_dear_takes_a_bounded_number_of_steps() {
        for records in dear() {
            let client = query("client.test.", RD, None);
            let mut reply = answer(QR, &records);
            assert!(reply.len() > 50_000);
            let edited = super::super::work::of(|| {
                edit_reply((&client.0, &client.1), &example(), &Renamed, 65_535, &mut reply, 0)
            });
            assert!(edited.0.is_ok() && edited.1 <= MOST_STEPS as usize + 70_000, "{} steps", edited.1);
            assert_eq!(listing(&reply).len(), 240);
        }
    }

    #[test]
    fn options_of_the_reply_stay() {
        let client = query("client.test.", RD, Some(false));
        let opt = [&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6][..], &[0, 15, 0, 2, 0, 15]].concat();
        let mut reply = answer(QR, &[address(Answer, 60, 1), (Additional, opt.clone())]);
        edit_reply((&client.0, &client.1), &example(), &Renamed, 1232, &mut reply, 0).unwrap();
        assert!(reply.ends_with(&opt));
        assert_eq!(listing(&reply), ["Answer client.test. 7 A 4"]);
    }

    #[test]
    fn a_malformed_reply_is_left_as_it_is() {
        let client = query("client.test.", RD, None);
        let sound = answer(QR, &many());
        for length in 0..sound.len() {
            let mut reply = sound[..length].to_vec();
            assert!(
                edit_reply((&client.0, &client.1), &example(), &Renamed, 65_535, &mut reply, 0).is_err(),
                "{length}"
            );
            assert_eq!(reply, sound[..length]);
        }
        for at in 0..sound.len() {
            for octet in [0, 1, 63, 0xc0, 0xff] {
                let mut reply = sound.clone();
                reply[at] = octet;
                // Refused or changed, never a panic.
                _ = edit_reply((&client.0, &client.1), &example(), &Renamed, 65_535, &mut reply, 0);
            }
        }
    }

    #[test]
    fn what_an_upstream_said_beside_its_records_is_kept() {
        let mut wire = answer(QR | 3, &many());
        wire[11] += 1;
        wire.extend_from_slice(&super::super::opt::encode(1232, 1, true));
        let response = Response::read(&wire).unwrap();
        let client = query("client.test.", RD, Some(true));
        let edited = response.edited(&client.0, &client.1, &Renamed).unwrap();
        assert_eq!((edited.rcode(), edited.dnssec_ok()), (Rcode(19), true));
        assert_eq!(edited.question_name(), Name::parse("client.test.").unwrap());
    }
}
