//! Netlink messages as they come from a socket. Pure.

use rtnetlink::packet_core::{ErrorBuffer, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use std::io;
use std::ops::RangeInclusive;

/// The messages of a datagram, up to the first that is not whole.
pub(crate) fn messages(octets: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        // Messages start at multiples of four octets (NLMSG_ALIGNTO).
        let length = usize::try_from(message.length()).ok()?.next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
        Some(message)
    })
}

/// What a message says about the request it answers.
#[derive(Debug)]
enum NetlinkAnswer {
    /// The request failed.
    Failed(io::Error),
    /// The request, or the list it asked for, is through.
    Done,
    /// A part of what was asked for.
    Part,
}

/// Gives to `part` what the messages of `datagram` bring that answer requests of these sequence numbers. True once the
/// last of the requests is answered; answers to earlier ones, given up on after an error, are passed over.
///
/// # Errors
///
/// One of the requests was refused.
pub(crate) fn take_answers(
    datagram: &[u8],
    sequence: &RangeInclusive<u32>,
    mut part: impl FnMut(&[u8]),
) -> io::Result<bool> {
    for message in messages(datagram).filter(|message| sequence.contains(&message.sequence_number())) {
        match answer(&message) {
            NetlinkAnswer::Failed(error) => return Err(error),
            NetlinkAnswer::Done if message.sequence_number() == *sequence.end() => return Ok(true),
            NetlinkAnswer::Done => {}
            NetlinkAnswer::Part => part(message.payload()),
        }
    }
    Ok(false)
}

/// Reads `message` as the answer to a request.
fn answer(message: &NetlinkBuffer<&[u8]>) -> NetlinkAnswer {
    match message.message_type() {
        NLMSG_DONE => NetlinkAnswer::Done,
        NLMSG_ERROR => match ErrorBuffer::new_checked(message.payload()).map(|error| error.code()) {
            Ok(None) => NetlinkAnswer::Done,
            Ok(Some(code)) => NetlinkAnswer::Failed(io::Error::from_raw_os_error(code.get().saturating_abs())),
            Err(error) => NetlinkAnswer::Failed(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        },
        _ => NetlinkAnswer::Part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length, type, flags, sequence number, port ID, payload (RFC 3549 section 2.2), padded.
    pub(super) fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        octets.extend((16 + payload.len() as u32).to_ne_bytes());
        octets.extend(kind.to_ne_bytes());
        octets.extend(0_u16.to_ne_bytes());
        octets.extend(sequence.to_ne_bytes());
        octets.extend(7_u32.to_ne_bytes());
        octets.extend(payload);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    }

    #[test]
    fn a_datagram_falls_into_its_messages_and_what_is_cut_is_left_out() {
        let mut octets = message(9, 1, b"abcde");
        octets.extend(message(10, 2, b""));
        octets.extend(&message(11, 3, b"abcdefgh")[..20]);
        let types: Vec<u16> = messages(&octets).map(|message| message.message_type()).collect();
        assert_eq!(types, [9, 10]);
        assert_eq!(messages(b"short").count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0, "a length of 0 does not loop");
    }

    #[test]
    fn errors_and_acknowledgements_are_told_apart() {
        let payload = |code: i32| [code.to_ne_bytes().as_slice(), &[0; 16]].concat();
        let read = |octets: &[u8]| answer(&messages(octets).next().unwrap());
        assert!(matches!(read(&message(2, 1, &payload(0))), NetlinkAnswer::Done));
        let failed = read(&message(2, 1, &payload(-libc::EPERM)));
        assert!(matches!(failed, NetlinkAnswer::Failed(error) if error.raw_os_error() == Some(libc::EPERM)));
        assert!(matches!(read(&message(2, 1, b"")), NetlinkAnswer::Failed(_)));
        assert!(matches!(read(&message(0xa06, 1, b"")), NetlinkAnswer::Part));
    }
}
