//! Checks an upstream's answer, octet for octet, before anything else sees it.

use super::header::{QR, TC};
use super::layout;
use super::opt::{DNSSEC_OK, OPT_LENGTH};
use super::query::question_name_end;
use super::record::{Record, Section};
use super::wire_reader::{MAX_MESSAGE_LENGTH, NameBudget, u16_at, walk_name_within};
use super::{Rcode, RecordType, WireError, work};
use smallvec::SmallVec;
use std::ops::Range;

/// Records an answer may hold: 65,535 octets have room for 4,094 addresses, so no sane answer has more.
const MAX_RECORDS: u32 = 4096;

/// Octets that every client has room for, with the OPT record it may get (RFC 1035 section 4.2.1).
const ALWAYS_FITS: usize = 512 - OPT_LENGTH;

/// Where a record stands: its owner's name and its TTL. Both fit, as a message has at most 65,535 octets.
#[derive(Clone, Copy)]
pub(super) struct RecordOffsets {
    pub owner: u16,
    pub ttl: u16,
}

/// An upstream's answer that has been found sound.
pub(super) struct Validated<'a> {
    pub wire: &'a [u8],
    pub flags: u16,
    /// The whole 12 bits.
    pub rcode: Rcode,
    pub dnssec_ok: bool,
    /// Options of the OPT record, the last one if there are several.
    pub options: &'a [u8],
    pub question_end: usize,
    /// Records of each section, OPT not counted.
    pub counts: [u16; 3],
    /// All of them but OPT.
    pub offsets: SmallVec<[RecordOffsets; 32]>,
    /// Offset after the last of `offsets`.
    pub end: usize,
    /// False if the octets up to `end` must not be kept as they are: OPT stands among them, a name borrows octets that
    /// will be patched or a pointer from within the question, or names are written out in an answer that some clients
    /// would get cut for its length.
    pub keepable: bool,
    /// A name stands written out where it could be compressed, if an earlier one ends alike.
    written_out: bool,
    /// What following names may still cost.
    steps: NameBudget,
}

impl<'a> Validated<'a> {
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'a>> {
        let [answers, authorities, _] = self.counts.map(usize::from);
        self.offsets.iter().enumerate().filter_map(move |(index, place)| {
            let section = match index {
                _ if index < answers => Section::Answer,
                _ if index < answers + authorities => Section::Authority,
                _ => Section::Additional,
            };
            Record::at(section, self.wire, usize::from(place.owner), usize::from(place.ttl) - 4).ok()
        })
    }
}

/// Checks the whole of `wire`. Octets after the last record are ignored. A message that ends early is accepted up to
/// its last whole record if it says TC: some servers cut at an octet rather than a record.
pub(super) fn validate(wire: &[u8]) -> Result<Validated<'_>, WireError> {
    if wire.len() > MAX_MESSAGE_LENGTH {
        return Err(WireError::TooLong);
    }
    let flags = u16_at(wire, 2)?;
    let counts = [u16_at(wire, 6)?, u16_at(wire, 8)?, u16_at(wire, 10)?];
    if flags & QR == 0 {
        return Err(WireError::NotAResponse);
    }
    let opcode = (flags >> 11) as u8 & 0x0f;
    if opcode != 0 {
        return Err(WireError::Opcode(opcode));
    }
    let questions = u16_at(wire, 4)?;
    if questions != 1 {
        return Err(WireError::QuestionCount(questions));
    }
    let total = counts.iter().map(|count| u32::from(*count)).sum();
    if total > MAX_RECORDS {
        return Err(WireError::RecordCount(total));
    }
    let question_end = question_name_end(wire)? + 4;
    if question_end > wire.len() {
        return Err(WireError::Short(question_end));
    }
    let mut checked = Validated {
        wire,
        flags,
        rcode: Rcode(flags & 0x0f),
        dnssec_ok: false,
        options: &[],
        question_end,
        counts: [0; 3],
        offsets: SmallVec::new(),
        end: question_end,
        keepable: true,
        written_out: false,
        steps: NameBudget::of_message(wire.len()),
    };
    match checked.read_sections(counts) {
        Err(WireError::Short(_)) if flags & TC != 0 => (),
        read => read?,
    }
    checked.keepable &= !checked.written_out || checked.end <= ALWAYS_FITS;
    Ok(checked)
}

impl Validated<'_> {
    fn read_sections(&mut self, counts: [u16; 3]) -> Result<(), WireError> {
        let mut at = self.question_end;
        let mut opt_seen = false;
        for (section, count) in Section::ALL.into_iter().zip(counts) {
            for _ in 0..count {
                work::count();
                let owner = at;
                let fixed = self.follow(owner, true)?;
                let record = Record::at(section, self.wire, owner, fixed)?;
                at = record.end();
                if record.rtype == RecordType::OPT {
                    opt_seen = true;
                    // Elsewhere it means nothing. Of several the last counts, as for CoreDNS; RFC 6891 section 6.1.1
                    // has a rule for queries only.
                    if section != Section::Additional {
                        continue;
                    }
                    self.rcode = Rcode(self.flags & 0x0f | (record.ttl >> 24 << 4) as u16);
                    self.dnssec_ok = record.ttl as u16 & DNSSEC_OK != 0;
                    self.options = record.rdata();
                    continue;
                }
                self.offsets.push(RecordOffsets { owner: owner as u16, ttl: (fixed + 4) as u16 });
                self.check_data(&record).map_err(|error| match error {
                    // The record lies within the message, so this is no message cut short.
                    WireError::Short(_) => WireError::BadRecord(owner),
                    other => other,
                })?;
                self.counts[section as usize] += 1;
                self.end = at;
                self.keepable &= !opt_seen;
            }
        }
        Ok(())
    }

    /// Follows the name at `offset`, which may or may not be written compressed; gives the offset after it.
    fn follow(&mut self, offset: usize, compressible: bool) -> Result<usize, WireError> {
        let (wire, offsets, keepable) = (self.wire, &self.offsets, &mut self.keepable);
        let type_and_class = self.question_end - 4..self.question_end;
        let mut compressed = false;
        let after = walk_name_within(wire, offset, &mut self.steps, |labels| {
            if labels.start != offset {
                compressed = true;
                // What ends the run counts too: the root or a pointer.
                let ends_in_root = wire.get(labels.end) == Some(&0);
                let octets = labels.start..labels.end + if ends_in_root { 1 } else { 2 };
                // Within the question's labels a pointer's second octet may be a letter, which each client spells as it
                // likes.
                let is_spelt_anew = !ends_in_root && labels.end < type_and_class.start;
                *keepable &= !is_spelt_anew && !overlap(&octets, &type_and_class) && !touches_ttl(offsets, &octets);
            }
        })?;
        let is_root = after == offset + 1;
        self.written_out |= compressible && !compressed && !is_root;
        Ok(after)
    }

    /// Checks that the data has the layout of its type and that its names end within it.
    fn check_data(&mut self, record: &Record<'_>) -> Result<(), WireError> {
        let layout = layout::of(record.rtype, record.class);
        let end = record.end();
        let malformed = WireError::BadRecord(record.owner);
        let mut at = record.rdata.0 + usize::from(layout.fixed);
        for _ in 0..layout.strings {
            at += 1 + usize::from(*self.wire.get(at).ok_or(malformed)?);
        }
        for _ in 0..layout.names {
            if at >= end {
                return Err(malformed);
            }
            at = self.follow(at, layout.compressible)?;
        }
        match layout.rest {
            Some(rest) if at + usize::from(rest) != end => Err(malformed),
            None if at > end => Err(malformed),
            _ => Ok(()),
        }
    }
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}

/// True if octets overlap the TTL of a record; patching that would change a name that borrows them.
fn touches_ttl(offsets: &[RecordOffsets], octets: &Range<usize>) -> bool {
    let ttl = |place: &RecordOffsets| usize::from(place.ttl)..usize::from(place.ttl) + 4;
    // Most pointers lead to the question, before every record.
    if offsets.first().is_none_or(|first| octets.end <= usize::from(first.owner)) {
        return false;
    }
    let next = offsets.partition_point(|place| ttl(place).end <= octets.start);
    offsets.get(next).is_some_and(|place| overlap(octets, &ttl(place)))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{QUESTION_END, TO_QUESTION, address, answer, opt, record};
    use super::*;
    use Section::{Additional, Answer, Authority};

    fn keepable(records: &[(Section, Vec<u8>)]) -> bool {
        validate(&answer(QR, records)).unwrap().keepable
    }

    fn pointer(offset: usize) -> [u8; 2] {
        (0xc000 | offset as u16).to_be_bytes()
    }

    #[test]
    fn a_compressed_answer_is_kept_as_it_is() {
        assert!(keepable(&[]));
        assert!(keepable(&[
            record(Answer, TO_QUESTION, 5, 60, b"\x01a\xc0\x0c"),
            record(Answer, &pointer(QUESTION_END + 12), 1, 60, &[192, 0, 2, 1]),
            record(Authority, b"\x00", 2, 60, &pointer(QUESTION_END + 12)),
            record(Additional, b"\x02ns\xc0\x0c", 1, 60, &[192, 0, 2, 1]),
            opt(0),
        ]));
    }

    #[test]
    fn what_will_be_patched_or_could_be_shorter_is_not_kept_as_it_is() {
        let ttl = QUESTION_END + 2 + 4;
        let long = record(Answer, TO_QUESTION, 16, 60, &[0; 450]);
        let owner_written_out = record(Answer, b"\x01a\x07example\x00", 1, 60, &[192, 0, 2, 1]);
        let target_written_out = record(Answer, TO_QUESTION, 5, 60, b"\x01a\x07example\x00");
        for written_out in [owner_written_out, target_written_out] {
            assert!(keepable(std::slice::from_ref(&written_out)), "names written out in a short answer");
            assert!(!keepable(&[long.clone(), written_out]), "names written out in a long one");
        }
        assert!(!keepable(&[opt(0), address(Additional, 60, 1)]), "OPT before another record");
        for offset in [QUESTION_END - 4, QUESTION_END - 2] {
            assert!(
                !keepable(&[record(Answer, TO_QUESTION, 5, 60, &pointer(offset))]),
                "a name in the question's type or class"
            );
        }
        for offset in ttl..ttl + 3 {
            assert!(
                !keepable(&[address(Answer, 0, 1), record(Answer, &pointer(offset), 1, 60, &[192, 0, 2, 1])]),
                "a name in a TTL"
            );
        }
        assert!(!keepable(&[record(Answer, TO_QUESTION, 5, 0, &pointer(ttl))]), "a name in its own record's TTL");
    }
}
