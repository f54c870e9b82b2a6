//! What comes over TCP, in whatever pieces: the first octet says from whom, the second how it is cut up. A reader of
//! dnstap says one thing alone, and is read octet by octet.

use nodelocaldns::directives::cache::classify;
use nodelocaldns::directives::dnstap::takes_dnstap;
use nodelocaldns::message::framing::{self, Frame};
use nodelocaldns::message::{Query, Response, work};
use std::ops::RangeInclusive;

/// Octets of the longest query that the server reads.
const LONGEST_QUERY: usize = 4096;

/// Steps that reading what a stream brings may take for each of its octets: a name has 127 labels at most, and the
/// shortest record of two such names, which are pointers, has 14 octets. A message has a budget for them besides.
const STEPS_PER_OCTET: usize = 2 * 127 / 14 + 2;

/// Octets of the longest control frame of Frame Streams, and the type of ACCEPT.
const LONGEST_CONTROL: u64 = 512;
const ACCEPT: u32 = 1;

/// Panics if anything that a connection relies on does not hold.
pub fn run(octets: &[u8]) {
    let Some((&[kind, cut], stream)) = octets.split_first_chunk() else { return };
    match kind {
        b'c' => check_stream(stream, cut, 1..=LONGEST_QUERY, read_query),
        b'u' => check_stream(stream, cut, 0..=usize::from(u16::MAX), read_answer),
        b'd' => check_reader(stream),
        _ => {}
    }
}

/// The messages of a stream are the same in whatever pieces it comes, and reading them takes steps in proportion to its
/// octets.
fn check_stream(stream: &[u8], cut: u8, lengths: RangeInclusive<usize>, read: fn(&[u8])) {
    let mut whole = Vec::new();
    let rest = take(stream, &lengths, |message| whole.push(message.to_vec()));
    let taken = stream.len() - rest.len();
    assert_eq!(whole.iter().map(|message| message.len() + 2).sum::<usize>(), taken, "no octet is passed over");

    let mut inbox = Vec::new();
    let mut in_pieces = Vec::new();
    for piece in stream.chunks(usize::from(cut) + 1) {
        inbox.extend_from_slice(piece);
        let left = take(&inbox, &lengths, |message| in_pieces.push(message.to_vec())).len();
        inbox.drain(..inbox.len() - left);
        if framing::first(&inbox, lengths.clone()) == Frame::OutOfBounds {
            break;
        }
    }
    assert!(in_pieces == whole, "{} messages in pieces, {} at once", in_pieces.len(), whole.len());

    let ((), steps) = work::of(|| whole.iter().for_each(|message| read(message)));
    assert!(steps <= STEPS_PER_OCTET * stream.len(), "{steps} steps for {} octets", stream.len());
}

/// Takes whole messages off the front; gives the rest.
fn take<'a>(stream: &'a [u8], lengths: &RangeInclusive<usize>, mut each: impl FnMut(&[u8])) -> &'a [u8] {
    let mut left = stream;
    while let Frame::Message { octets, rest } = framing::first(left, lengths.clone()) {
        assert!(lengths.contains(&octets.len()));
        each(octets);
        left = rest;
    }
    left
}

/// A reader of dnstap is one that says ACCEPT, in a control frame of which no octet too many is read.
fn check_reader(said: &[u8]) {
    let (is_reader, read) = takes_dnstap(said);
    let word = |at: usize| said.get(at..at + 4).map(|word| u32::from_be_bytes(word.try_into().expect("four octets")));
    assert!(read <= 8 + LONGEST_CONTROL, "{read} octets are read");
    if is_reader {
        assert_eq!((word(0), word(8)), (Some(0), Some(ACCEPT)));
        assert_eq!(word(4).map(|length| u64::from(length) + 8), Some(read), "to its end and no further");
    }
    let bare = [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1];
    assert!(is_reader || !said.starts_with(&bare), "one that names no type takes all");
}

fn read_query(message: &[u8]) {
    let mut reply = Vec::new();
    if let Err(rejection) = Query::read(message) {
        rejection.write(message, &mut reply);
    }
    assert!(reply.len() <= message.len() + 11, "what is wrong is not answered with more than an OPT record beside it");
}

fn read_answer(message: &[u8]) {
    if let Ok(response) = Response::read(message) {
        classify(&response, || 0);
    }
}
