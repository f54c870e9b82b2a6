//! The order of the addresses in a reply's octets. Addresses of one name change places; everything else stays where it
//! is, so that no name is written anew.

use super::compose::Composer;
use super::header::QR;
use super::reply_records::{LocatedRecord, opt_of};
use super::wire_reader::{HEADER_LENGTH, u16_at};
use super::{LowerName, Name, RecordType, Response, WireError, query};
use smallvec::SmallVec;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Two or more addresses that a name has in one section of a reply, all of one family.
pub(crate) struct AddressSet<'a> {
    message: &'a mut [u8],
    /// Where the name is written.
    owner: usize,
    run: RecordRun,
}

/// Records of one owner and type in a row. The first may write its owner out, and the others point to it.
#[derive(Clone, Copy)]
struct RecordRun {
    count: usize,
    /// Offsets of the data of the first and of the second, and how far it is to each one after that.
    first: usize,
    second: usize,
    stride: usize,
    /// Octets of an address: 4 or 16.
    width: usize,
}

/// Where a reply has its addresses that change places, where these are all there is: of every copy of it the same. For
/// [`AddressRun::arrange`], so that nothing is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRun {
    /// Offset of the first record, whose owner is a pointer.
    first: u16,
    count: u16,
    is_v6: bool,
}

impl AddressRun {
    /// That of a whole reply; `None` where [`arrange_addresses`] is to look each time.
    pub(crate) fn of(reply: &[u8]) -> Option<Self> {
        let (first, run) = plain_addresses(reply)?;
        let (first, count) = (u16::try_from(first).ok()?, u16::try_from(run.count).ok()?);
        Some(Self { first, count, is_v6: run.width == 16 })
    }
    /// Shows the addresses to `arrange`, in a copy of the reply.
    #[inline]
    pub(crate) fn arrange(self, reply: &mut [u8], arrange: impl FnOnce(&mut AddressSet<'_>)) {
        let owner = usize::from(self.first);
        let run = RecordRun::plain(owner, self.count.into(), if self.is_v6 { 16 } else { 4 });
        arrange(&mut AddressSet { message: reply, owner, run });
    }
}

impl RecordRun {
    /// Records whose owners are all pointers.
    #[inline]
    fn plain(at: usize, count: usize, width: usize) -> Self {
        let stride = HEAD + width;
        Self { count, first: at + HEAD, second: at + HEAD + stride, stride, width }
    }
}

/// Octets of a record before its data, whose owner is a pointer.
const HEAD: usize = 12;

#[inline]
fn swap_first<const WIDTH: usize>(one: &mut [u8], other: &mut [u8]) {
    if let (Some(one), Some(other)) = (one.first_chunk_mut::<WIDTH>(), other.first_chunk_mut::<WIDTH>()) {
        std::mem::swap(one, other);
    }
}

impl AddressSet<'_> {
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.run.count
    }
    #[inline]
    fn offset(&self, index: usize) -> usize {
        match index {
            0 => self.run.first,
            _ => self.run.second + (index - 1) * self.run.stride,
        }
    }
    /// The data of an address record; empty beyond the last.
    #[inline]
    fn octets(&self, index: usize) -> &[u8] {
        let at = self.offset(index);
        self.message.get(at..at + self.run.width).filter(|_| index < self.run.count).unwrap_or_default()
    }
    /// The address at a place below [`AddressSet::count`].
    pub(crate) fn address(&self, index: usize) -> Option<IpAddr> {
        let octets = self.octets(index);
        let v4 = octets.try_into().ok().map(|octets: [u8; 4]| Ipv4Addr::from(octets).into());
        v4.or_else(|| octets.try_into().ok().map(|octets: [u8; 16]| Ipv6Addr::from(octets).into()))
    }
    /// Lets two addresses change places.
    #[inline(always)]
    pub(crate) fn swap(&mut self, one: usize, other: usize) {
        let width = self.run.width;
        let (low, high) = (self.offset(one.min(other)), self.offset(one.max(other)));
        if one == other || one.max(other) >= self.run.count {
            return;
        }
        let Some((head, high)) = self.message.split_at_mut_checked(high) else { return };
        let low = head.get_mut(low..).unwrap_or_default();
        // Lengths that are known before take a few instructions.
        match width {
            4 => swap_first::<4>(low, high),
            _ => swap_first::<16>(low, high),
        }
    }
    /// Puts the addresses into the order of their ranks, those of one rank as they stand.
    pub(crate) fn sort_by_rank(&mut self, rank: impl Fn(IpAddr) -> usize) {
        let mut ranked: SmallVec<[(usize, [u8; 16]); 16]> = SmallVec::new();
        for index in 0..self.run.count {
            let Some(address) = self.address(index) else { return };
            let mut octets = [0; 16];
            octets[..self.run.width].copy_from_slice(self.octets(index));
            ranked.push((rank(address), octets));
        }
        if ranked.is_sorted_by_key(|(rank, _)| *rank) {
            return;
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        for (index, (_, octets)) in ranked.iter().enumerate() {
            let at = self.offset(index);
            if let Some(place) = self.message.get_mut(at..at + self.run.width) {
                place.copy_from_slice(&octets[..self.run.width]);
            }
        }
    }
    /// Whose addresses they are.
    pub(crate) fn owner(&self) -> LowerName {
        Name::read(self.message, self.owner).map_or_else(|_| Name::root(), |(name, _)| name).to_lower()
    }
}

/// Shows the addresses of each name in the answer and additional sections of a successful reply, `reply[start..]`, to
/// `arrange`. Before that, aliases that stand behind addresses are put in front of them, and MX records into a random
/// order if `below` gives random numbers below its argument: for that the records are written anew, which allocates.
/// Else nothing does. A name that borrowed the octets of an address, as no server writes it, may become another.
#[inline]
pub(crate) fn arrange_addresses(
    reply: &mut Vec<u8>,
    start: usize,
    below: Option<fn(usize) -> usize>,
    arrange: &mut impl FnMut(&mut AddressSet<'_>),
) {
    let Some(message) = reply.get_mut(start..) else { return };
    // Whatever does not fit together is left as it is.
    if let Ok(Found::Misordered) = pass(message, below.is_some(), arrange)
        && rewrite(reply, start, below).is_ok()
    {
        _ = pass(&mut reply[start..], false, arrange);
    }
}

#[derive(PartialEq, Eq)]
enum Found {
    InOrder,
    /// The records have to be written anew first; nothing was arranged.
    Misordered,
}

#[inline]
fn pass(
    message: &mut [u8],
    shuffles_mx: bool,
    arrange: &mut impl FnMut(&mut AddressSet<'_>),
) -> Result<Found, WireError> {
    let Some(header) = message.first_chunk::<HEADER_LENGTH>() else { return Err(WireError::Short(0)) };
    let [flags, answers, authorities, additionals] =
        [2, 6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
    // Of one record there is no other order; OPT is one of the additional ones.
    if flags & 0x0f != 0 || answers < 2 && additionals < 2 {
        return Ok(Found::InOrder);
    }
    let at = query::question_name_end(message)? + 4;
    if additionals < 2
        && let Some(run) = plain_run(message, at, answers.into())
    {
        arrange(&mut AddressSet { message, owner: at, run });
        return Ok(Found::InOrder);
    }
    let Some(at) = section(message, at, answers, true, shuffles_mx, arrange)? else { return Ok(Found::Misordered) };
    if additionals > 1 {
        let at = section(message, at, authorities, false, false, &mut |_| ())?.unwrap_or(message.len());
        section(message, at, additionals, false, false, arrange)?;
    }
    Ok(Found::InOrder)
}

/// Offset and addresses of a successful reply that has others in no section.
fn plain_addresses(reply: &[u8]) -> Option<(usize, RecordRun)> {
    let counts = |at| u16_at(reply, at).ok();
    let (flags, answers, additionals) = (counts(2)?, counts(6)?, counts(10)?);
    if flags & 0x0f != 0 || answers < 2 || additionals > 1 {
        return None;
    }
    let at = query::question_name_end(reply).ok()? + 4;
    Some((at, plain_run(reply, at, answers.into())?))
}

/// The answer section, where it is but addresses of one name, to which each record points: nearly every reply that has
/// addresses to put into order.
#[inline]
fn plain_run(message: &[u8], at: usize, count: usize) -> Option<RecordRun> {
    let first: &[u8; HEAD] = message.get(at..)?.first_chunk()?;
    let [0xc0..=0xff, _, type_high, type_low, .., 0, length] = *first else { return None };
    let width = match (RecordType(u16::from_be_bytes([type_high, type_low])), length) {
        (RecordType::A, 4) => 4,
        (RecordType::AAAA, 16) => 16,
        _ => return None,
    };
    let stride = HEAD + width;
    let mut end = at + stride;
    for _ in 1..count {
        let next: &[u8; HEAD] = message.get(end..)?.first_chunk()?;
        if next[..4] != first[..4] || next[10..] != first[10..] {
            return None;
        }
        end += stride;
    }
    (end <= message.len()).then(|| RecordRun::plain(at, count, width))
}

/// Goes over a section; gives the offset after it, or `None` if its records are to be written anew, with nothing
/// arranged.
#[inline]
fn section(
    message: &mut [u8],
    mut at: usize,
    count: u16,
    is_answer: bool,
    shuffles_mx: bool,
    arrange: &mut impl FnMut(&mut AddressSet<'_>),
) -> Result<Option<usize>, WireError> {
    let (mut index, mut has_addresses, mut mx) = (0, false, 0);
    let mut runs: SmallVec<[(usize, RecordRun); 2]> = SmallVec::new();
    while index < count {
        let record = LocatedRecord::at(message, at)?;
        at = record.end;
        index += 1;
        let width = match record.rtype {
            RecordType::A => 4,
            RecordType::AAAA => 16,
            RecordType::CNAME if is_answer && has_addresses => return Ok(None),
            RecordType::MX if is_answer && shuffles_mx => {
                mx += 1;
                if mx > 1 {
                    return Ok(None);
                }
                continue;
            }
            _ => continue,
        };
        has_addresses = true;
        if record.end - record.data != width {
            continue;
        }
        let mut run = RecordRun { count: 1, first: record.data, second: 0, stride: 0, width };
        while index < count {
            let next = LocatedRecord::at(message, at)?;
            let is_of_run = next.rtype == record.rtype
                && next.end - next.data == width
                && is_same_owner(message, &record, &next)
                && (run.count < 3 || next.data - next.owner == run.stride - width);
            if !is_of_run {
                break;
            }
            if run.count == 1 {
                run.second = next.data;
            } else {
                run.stride = next.data - (run.second + (run.count - 2) * run.stride);
            }
            run.count += 1;
            at = next.end;
            index += 1;
        }
        if run.count > 1 {
            runs.push((record.owner, run));
        }
    }
    for (owner, run) in runs {
        arrange(&mut AddressSet { message, owner, run });
    }
    Ok(Some(at))
}

/// True if the owners are written alike, or the second points to the first.
#[inline]
fn is_same_owner(message: &[u8], first: &LocatedRecord, next: &LocatedRecord) -> bool {
    let (one, other) = (first.owner(message), next.owner(message));
    one == other
        || matches!(*other, [high, low] if usize::from(u16::from_be_bytes([high, low])) == 0xc000 | first.owner)
}

/// Writes the records anew: aliases first, then whatever is neither address nor MX, addresses, and MX records in some
/// order.
#[cold]
fn rewrite(reply: &mut Vec<u8>, start: usize, below: Option<fn(usize) -> usize>) -> Result<(), WireError> {
    let message = &reply[start..];
    let response = Response::read(message)?;
    let mut records: Vec<_> = response.records().collect();
    let answers = &mut records[..response.answer_count()];
    answers.sort_by_key(|record| match record.rtype {
        RecordType::CNAME => 0,
        RecordType::A | RecordType::AAAA => 2,
        RecordType::MX => 3,
        _ => 1,
    });
    let mx = answers.partition_point(|record| record.rtype != RecordType::MX);
    if let (Some(below), Some(mx)) = (below, answers.get_mut(mx..)) {
        for placed in 1..mx.len() {
            mx.swap(placed, below(placed + 1).min(placed));
        }
    }

    let question_end = query::question_name_end(message)? + 4;
    let spelt = message.get(HEADER_LENGTH..question_end).unwrap_or_default();
    let mut composer = Composer::new(&spelt.to_ascii_lowercase());
    composer.point_to_question(spelt);
    for record in &records {
        composer.push(record)?;
    }
    let mut octets = composer.finish().octets;
    octets.extend_from_slice(opt_of(message, question_end)?);
    if octets.len() > message.len() {
        // It may not fit for its client.
        return Err(WireError::TooLong);
    }
    let head = message.get(..question_end).ok_or(WireError::Short(question_end))?;
    octets[..question_end].copy_from_slice(head);
    debug_assert!(u16_at(&octets, 2)? & QR != 0, "a reply is a response");
    reply.truncate(start);
    reply.extend_from_slice(&octets);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Section::{self, Additional, Answer, Authority};
    use super::super::fixtures::{TO_QUESTION, address, answer, opt, record};
    use super::*;

    fn arranged(mut reply: Vec<u8>, shuffles_mx: bool, mut arrange: impl FnMut(&mut AddressSet<'_>)) -> Vec<u8> {
        reply.splice(..0, *b"before");
        arrange_addresses(&mut reply, 6, shuffles_mx.then_some(|count| fastrand::usize(..count)), &mut arrange);
        assert_eq!(reply[..6], *b"before");
        reply.split_off(6)
    }

    fn reversed(set: &mut AddressSet<'_>) {
        for index in 0..set.count() / 2 {
            set.swap(index, set.count() - 1 - index);
        }
    }

    /// Owner, type and last octet of the data of each record.
    fn records(reply: &[u8]) -> Vec<String> {
        let response = Response::read(reply).unwrap();
        let text = |record: super::super::Record<'_>| {
            format!("{} {} {}", record.owner(), record.rtype, record.rdata().last().copied().unwrap_or_default())
        };
        response.records().map(text).collect()
    }

    fn addresses(count: u8) -> Vec<(Section, Vec<u8>)> {
        (0..count).map(|last| address(Answer, 60, last)).collect()
    }

    #[test]
    fn addresses_of_one_name_change_places_and_nothing_else_does() {
        let before = answer(QR, &[&addresses(3)[..], &[opt(0)]].concat());
        let after = arranged(before.clone(), true, reversed);
        assert_eq!(records(&after), ["example. A 2", "example. A 1", "example. A 0"]);
        assert_eq!(arranged(after, true, reversed), before);
    }

    #[test]
    fn who_owns_them_may_be_written_out_once_or_stand_behind_aliases() {
        let alias = record(Answer, TO_QUESTION, 5, 30, b"\x01a\xc0\x0c");
        // The name of the alias's target, where it first stands.
        let target = (0xc000_u16 | (12 + 13 + 12)).to_be_bytes();
        let at = |owner: &[u8], last: u8| record(Answer, owner, 1, 60, &[192, 0, 2, last]);
        let of_alias = answer(QR, &[alias, at(&target, 1), at(&target, 2)]);
        assert_eq!(
            records(&arranged(of_alias, true, reversed)),
            ["example. CNAME 12", "a.example. A 2", "a.example. A 1"]
        );
        let to_first = (0xc000_u16 | (12 + 13)).to_be_bytes();
        let written_out = [at(b"\x01b\xc0\x0c", 1), at(&to_first, 2), at(&to_first, 3), at(&to_first, 4)];
        let expected = ["b.example. A 4", "b.example. A 3", "b.example. A 2", "b.example. A 1"];
        assert_eq!(records(&arranged(answer(QR, &written_out), true, reversed)), expected);
    }

    #[test]
    fn addresses_of_different_names_or_families_stay_apart() {
        let other = |section, last| record(section, b"\x01b\xc0\x0c", 1, 60, &[192, 0, 2, last]);
        let six = |last: u8| record(Answer, TO_QUESTION, 28, 60, &[&[0; 15][..], &[last]].concat());
        let reply = answer(
            QR,
            &[
                address(Answer, 60, 1),
                address(Answer, 60, 2),
                six(3),
                six(4),
                other(Answer, 5),
                other(Additional, 6),
                other(Additional, 7),
                opt(0),
            ],
        );
        let expected = ["A 2", "A 1", "AAAA 4", "AAAA 3", "A 5", "A 7", "A 6"];
        let after = records(&arranged(reply, true, reversed));
        let after: Vec<&str> = after.iter().map(|record| record.split_once(' ').unwrap().1).collect();
        assert_eq!(after, expected);
    }

    #[test]
    fn aliases_behind_addresses_are_put_before_them_and_opt_stays_last() {
        // The alias's target is where the first address's owner is written.
        let owner = (0xc000_u16 | (12 + 13)).to_be_bytes();
        let first = record(Answer, b"\x01a\xc0\x0c", 1, 60, &[192, 0, 2, 1]);
        let second = record(Answer, &owner, 1, 60, &[192, 0, 2, 2]);
        let alias = record(Answer, TO_QUESTION, 5, 30, &owner);
        let mut reply = answer(QR, &[first, second, alias, opt(0x8000)]);
        reply[13..20].copy_from_slice(b"EXample");
        let after = arranged(reply.clone(), false, reversed);
        assert_eq!(after[..25], reply[..25], "header and question are as they were");
        assert_eq!(after[after.len() - 11..], reply[reply.len() - 11..]);
        let records = records(&after);
        assert_eq!(
            (records[0].split(' ').nth(1), &records[1..]),
            (Some("CNAME"), &["a.example. A 2".to_owned(), "a.example. A 1".to_owned()][..])
        );
    }

    #[test]
    fn mx_records_change_places_where_they_shall() {
        let mx = |preference| record(Answer, TO_QUESTION, 15, 60, &[&[0, preference][..], b"\x01m\xc0\x0c"].concat());
        let reply = answer(QR, &[mx(1), mx(2), mx(3)]);
        assert_eq!(arranged(reply.clone(), false, |_| ()), reply);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let reply = arranged(reply.clone(), true, |_| ());
            let response = Response::read(&reply).unwrap();
            seen.insert(response.records().map(|record| record.rdata()[1]).collect::<Vec<u8>>());
        }
        assert_eq!(seen.len(), 6, "every order comes");
    }

    #[test]
    fn addresses_whose_places_are_known_change_them_as_those_that_are_found() {
        let six = |last: u8| record(Answer, TO_QUESTION, 28, 60, &[&[0; 15][..], &[last]].concat());
        let whole = [
            answer(QR, &addresses(4)),
            answer(QR, &[&addresses(2)[..], &[opt(0)]].concat()),
            answer(QR, &[six(1), six(2), six(3), address(Authority, 60, 9)]),
        ];
        for reply in whole {
            let mut copy = reply.clone();
            AddressRun::of(&reply).unwrap().arrange(&mut copy, reversed);
            assert!(copy != reply && copy == arranged(reply, true, reversed));
        }
        let alias = record(Answer, TO_QUESTION, 5, 30, b"\x01a\xc0\x0c");
        for other in [
            answer(QR | 2, &addresses(3)),
            answer(QR, &addresses(1)),
            answer(QR, &[alias, address(Answer, 60, 1), address(Answer, 60, 2)]),
            answer(QR, &[&addresses(2)[..], &[address(Additional, 60, 1), address(Additional, 60, 2)]].concat()),
            answer(QR, &[address(Answer, 60, 1), six(2)]),
        ] {
            assert_eq!(AddressRun::of(&other), None);
        }
        let whole = answer(QR, &addresses(3));
        let run = AddressRun::of(&whole).unwrap();
        for end in 0..whole.len() {
            assert_eq!(AddressRun::of(&whole[..end]), None);
            let mut cut = whole[..end].to_vec();
            run.arrange(&mut cut, reversed);
            assert_eq!(cut.len(), end, "nothing is taken for there that is not");
        }
    }

    #[test]
    fn ranks_put_addresses_in_order_and_keep_that_of_one_rank() {
        let by_parity = |set: &mut AddressSet<'_>| {
            set.sort_by_rank(|address| usize::from(!address.to_string().ends_with(['1', '3'])))
        };
        let after = records(&arranged(answer(QR, &addresses(5)), true, by_parity));
        assert_eq!(after, ["example. A 1", "example. A 3", "example. A 0", "example. A 2", "example. A 4"]);
    }

    #[test]
    fn failures_single_records_and_what_is_cut_off_are_left_as_they_are() {
        let never = |_: &mut AddressSet<'_>| panic!("there is nothing to arrange");
        for reply in
            [answer(QR | 2, &addresses(3)), answer(QR, &addresses(1)), answer(QR, &[opt(0)]), Vec::new(), vec![0; 11]]
        {
            assert_eq!(arranged(reply.clone(), true, never), reply);
        }
        let whole = answer(QR, &addresses(3));
        for end in 0..whole.len() {
            let cut = whole[..end].to_vec();
            assert_eq!(arranged(cut.clone(), true, reversed).len(), cut.len());
        }
    }
}
