//! Messages on a stream: each behind its length in two octets (RFC 1035 section 4.2.2).

use std::ops::RangeInclusive;

/// What stands at the front of a stream's octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variant says what its fields are")]
pub enum Frame<'a> {
    /// A message, and what comes after it.
    Message { octets: &'a [u8], rest: &'a [u8] },
    /// The beginning of one, or nothing.
    Incomplete,
    /// The beginning of one that is longer or shorter than what is read here.
    OutOfBounds,
}

/// Looks at the front of `octets`, for a message of so many octets. Does not depend on how much comes after it.
#[inline]
pub fn first(octets: &[u8], lengths: RangeInclusive<usize>) -> Frame<'_> {
    let Some((length, after)) = octets.split_first_chunk() else { return Frame::Incomplete };
    let length = usize::from(u16::from_be_bytes(*length));
    if !lengths.contains(&length) {
        return Frame::OutOfBounds;
    }
    match after.split_at_checked(length) {
        Some((octets, rest)) => Frame::Message { octets, rest },
        None => Frame::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::Frame::{Incomplete, Message, OutOfBounds};
    use super::first;

    #[test]
    fn a_message_is_taken_when_all_of_it_is_there_and_no_sooner() {
        let stream = b"\x00\x02ab\x00\x01c";
        for end in 0..4 {
            assert_eq!(first(&stream[..end], 1..=9), Incomplete);
        }
        assert_eq!(first(stream, 1..=9), Message { octets: b"ab", rest: b"\x00\x01c" });
    }

    #[test]
    fn a_length_out_of_bounds_is_told_before_the_message_comes() {
        assert_eq!(first(b"\x00\x00", 1..=9), OutOfBounds);
        assert_eq!(first(b"\x00\x0a", 1..=9), OutOfBounds);
        assert_eq!(first(b"\x00\x00", 0..=9), Message { octets: b"", rest: b"" });
    }
}
