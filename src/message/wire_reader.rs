//! Reading numbers and names at an offset of a message, with every bound checked.

use super::{WireError, work};
use std::ops::Range;

/// Octets of the message header (RFC 1035 section 4.1.1); the question begins here.
pub(super) const HEADER_LENGTH: usize = 12;

/// Octets a name may have in wire form, root octet included (RFC 1035 section 2.3.4).
pub(super) const MAX_NAME_LENGTH: usize = 255;

/// Octets a message may have: TCP frames it with a 16-bit length (RFC 1035 section 4.2.2).
pub(super) const MAX_MESSAGE_LENGTH: usize = 65_535;

/// Pointers one name may follow: a name of 255 octets has at most 127 labels, so no sane encoder needs more.
const MAX_POINTERS: usize = 127;

/// What following the names of one message may cost, in labels. Each name alone is bounded, but thousands of them may
/// lead down the same long way: without a bound for all, 64 KiB cost as much as a hundred times as many octets written
/// out. A name written out costs half a step an octet at most; 4,000 addresses of a name of 34 labels (ip6.arpa), each
/// owner a pointer, less than three. So nothing that a server has to say comes near.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameBudget {
    left: usize,
}

impl NameBudget {
    /// For each octet of the message.
    const PER_OCTET: usize = 4;
    /// For any message: enough for the longest way that one name may take, and for short messages of long names.
    const AT_LEAST: usize = 4096;
    /// A pointer costs more than a label, since where it leads has to be checked.
    const PER_POINTER: usize = 8;

    /// For one message of so many octets.
    pub(super) const fn of_message(octets: usize) -> Self {
        Self { left: Self::AT_LEAST + Self::PER_OCTET * octets }
    }

    fn spend(&mut self, steps: usize, offset: usize) -> Result<(), WireError> {
        self.left = self.left.checked_sub(steps).ok_or(WireError::TooManySteps(offset))?;
        Ok(())
    }
}

/// The 16-bit number at `offset`.
pub(super) fn u16_at(message: &[u8], offset: usize) -> Result<u16, WireError> {
    match message.get(offset..).and_then(<[u8]>::first_chunk) {
        Some(octets) => Ok(u16::from_be_bytes(*octets)),
        None => Err(WireError::Short(offset)),
    }
}

/// The 32-bit number at `offset`.
pub(super) fn u32_at(message: &[u8], offset: usize) -> Result<u32, WireError> {
    match message.get(offset..).and_then(<[u8]>::first_chunk) {
        Some(octets) => Ok(u32::from_be_bytes(*octets)),
        None => Err(WireError::Short(offset)),
    }
}

/// Follows the possibly compressed name at `offset` and hands each run of its labels to `visit`, without the octet that
/// ends it (the root or a pointer). Returns the offset after the name.
///
/// A pointer must lead to labels that end before the run it continues begins: "a prior occurrence of the same name"
/// (RFC 1035 section 4.1.4). So a name never depends on octets after it, no pointer loops, and a message cut at a
/// record boundary stays whole.
///
/// For a name that was followed within a message's [`NameBudget`] before, or stands alone in it.
pub(super) fn walk_name(message: &[u8], offset: usize, visit: impl FnMut(Range<usize>)) -> Result<usize, WireError> {
    walk_name_within(message, offset, &mut NameBudget { left: usize::MAX }, visit)
}

/// [`walk_name`] at the cost of a message's `steps`.
pub(super) fn walk_name_within(
    message: &[u8],
    offset: usize,
    steps: &mut NameBudget,
    mut visit: impl FnMut(Range<usize>),
) -> Result<usize, WireError> {
    let mut after = None;
    let mut length = 1;
    let mut pointers = 0;
    let mut bound = message.len();
    let mut start = offset;
    let mut at = offset;
    loop {
        let octet = match message.get(..bound).and_then(|readable| readable.get(at)) {
            Some(octet) => usize::from(*octet),
            None if after.is_none() => return Err(WireError::Short(at)),
            None => return Err(WireError::BadName(at)),
        };
        work::count();
        match octet {
            0 => {
                visit(start..at);
                return Ok(after.unwrap_or(at + 1));
            }
            1..=63 => {
                length += octet + 1;
                if length > MAX_NAME_LENGTH {
                    return Err(WireError::BadName(offset));
                }
                at += octet + 1;
                steps.spend(1, offset)?;
            }
            0xc0.. => {
                steps.spend(NameBudget::PER_POINTER, offset)?;
                let target = usize::from(u16_at(message, at)? & 0x3fff);
                pointers += 1;
                if target < HEADER_LENGTH || target >= start || at + 2 > bound || pointers > MAX_POINTERS {
                    return Err(WireError::BadName(at));
                }
                visit(start..at);
                after.get_or_insert(at + 2);
                bound = start;
                start = target;
                at = target;
            }
            _ => return Err(WireError::BadName(at)),
        }
    }
}

/// A name in uncompressed wire form, then each name above it, down to the root.
pub(super) struct Suffixes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Suffixes<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let suffix = self.0;
        let length = usize::from(*suffix.first()?);
        self.0 = if length == 0 { &[] } else { suffix.get(length + 1..).unwrap_or_default() };
        Some(suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(message: &[u8], offset: usize) -> Result<usize, WireError> {
        walk_name(message, offset, |_| ())
    }

    fn with_header(rest: &[u8]) -> Vec<u8> {
        [&[0; HEADER_LENGTH], rest].concat()
    }

    #[test]
    fn a_pointer_continues_a_name_with_earlier_labels() {
        let message = with_header(b"\x01b\x00\x01a\xc0\x0c");
        let mut runs = Vec::new();
        assert_eq!(walk_name(&message, 15, |run| runs.push(run)), Ok(19));
        assert_eq!(runs, [15..17, 12..14]);
    }

    #[test]
    fn a_pointer_to_itself_forward_or_into_the_header_is_refused() {
        assert_eq!(after(&with_header(b"\xc0\x0c"), 12), Err(WireError::BadName(12)));
        assert_eq!(after(&with_header(b"\xc0\x0e\x00"), 12), Err(WireError::BadName(12)));
        assert_eq!(after(&with_header(b"\xc0\x00"), 12), Err(WireError::BadName(12)));
    }

    #[test]
    fn labels_reached_by_a_pointer_must_end_before_the_name_that_points_there() {
        let message = with_header(b"\x02ab\x01a\xc0\x0c\x00");
        assert_eq!(after(&message, 15), Err(WireError::BadName(15)));
    }

    #[test]
    fn reserved_label_types_are_refused() {
        assert_eq!(after(&with_header(b"\x40\x00"), 12), Err(WireError::BadName(12)));
        assert_eq!(after(&with_header(b"\x80\x00"), 12), Err(WireError::BadName(12)));
    }

    #[test]
    fn a_name_may_have_255_octets_and_not_one_more() {
        let labels = |last: usize| {
            let mut name = Vec::new();
            for length in [63, 63, 63, last] {
                name.push(length as u8);
                name.extend(std::iter::repeat_n(b'x', length));
            }
            name.push(0);
            with_header(&name)
        };
        assert_eq!(after(&labels(61), 12), Ok(12 + 255));
        assert_eq!(after(&labels(62), 12), Err(WireError::BadName(12)));
    }

    #[test]
    fn a_name_that_the_message_cuts_off_is_short() {
        assert_eq!(after(&with_header(b"\x03ab"), 12), Err(WireError::Short(16)));
        assert_eq!(after(&with_header(b"\x01a\xc0"), 12), Err(WireError::Short(14)));
        assert_eq!(after(&with_header(b""), 12), Err(WireError::Short(12)));
    }

    #[test]
    fn a_long_chain_of_pointers_is_refused() {
        let mut rest = vec![0];
        for index in 0..200_u16 {
            let target = if index == 0 { 12 } else { 12 + 1 + 2 * (index - 1) };
            rest.extend((0xc000 | target).to_be_bytes());
        }
        let message = with_header(&rest);
        assert_eq!(after(&message, 13 + 2 * 126), Ok(13 + 2 * 127));
        assert!(after(&message, 13 + 2 * 127).is_err());
    }
    #[test]
    fn the_names_of_a_message_share_one_budget_that_the_longest_way_of_one_name_does_not_use_up() {
        let mut rest = b"\x01a\x00".to_vec();
        for index in 0..126_u16 {
            rest.extend((0xc000 | if index == 0 { 12 } else { 15 + 2 * (index - 1) }).to_be_bytes());
        }
        let message = with_header(&rest);
        let mut steps = NameBudget::of_message(message.len());
        let mut follow = || walk_name_within(&message, 15 + 2 * 125, &mut steps, |_| ());
        assert_eq!(follow(), Ok(15 + 2 * 126));
        let followed = (1..1000).take_while(|_| follow().is_ok()).count();
        // 126 pointers and a label each.
        assert_eq!(1 + followed, (4096 + 4 * message.len()) / (126 * 8 + 1));
        assert_eq!(follow(), Err(WireError::TooManySteps(15 + 2 * 125)));
    }
}
