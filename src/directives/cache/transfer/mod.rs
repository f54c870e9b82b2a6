//! What the caches of a process hold, as octets for the process that takes its place, and back. To the one that reads
//! them they are input like a packet's: every answer is checked as an upstream's is, and nothing goes over the bounds
//! of the caches that take it. Pure but for the reader and the writer it is given.
//!
//! All numbers are big-endian. The header: `nldc`, the format's version (8 bits), the writer's clock in milliseconds
//! (64). Then sections: 1, the length of a key (16), the key of a cache as [`ReloadState`] has it; and in each its
//! answers: 2, marks (8: 1 a denial, 2 used lately), flags of the key (8), TTL in seconds (32), age in milliseconds
//! (64), length (16), the message with an OPT record for what only that holds. At the end 0.

use super::classify::classify;
use super::entry::{Copied, Kind, Moment};
use super::handler::{AUTHORITATIVE, CHECKING_DISABLED, Kept};
use crate::chain::ReloadState;
use crate::message::{KeyFlags, QuestionKey, Response};
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

const MAGIC: [u8; 4] = *b"nldc";
const VERSION: u8 = 1;

const END: u8 = 0;
const SECTION: u8 = 1;
const ANSWER: u8 = 2;

const DENIAL: u8 = 1;
const USED: u8 = 2;
/// A TTL above it counts as 0 (RFC 2181 section 8).
const MAX_TTL: u32 = i32::MAX.cast_unsigned();

/// An OPT record (RFC 6891 section 6.1.2) up to its TTL field.
const OPT_START: [u8; 5] = [0, 0, 41, 4, 208];
/// Where a message's header counts additional records.
const ADDITIONAL_COUNT: std::ops::Range<usize> = 10..12;

/// One moment on two clocks: this process's, and the one that all processes of a machine share (CLOCK_MONOTONIC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// This process's clock.
    pub now: Instant,
    /// Since the machine was started.
    pub uptime: Duration,
}

/// How much is written, or read, at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of all answers together.
    pub octets: usize,
    /// It ends then.
    pub until: Instant,
}

/// What became of answers that were written or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferCount {
    /// Written, or put into a cache.
    pub kept: usize,
    /// No room, no cache for them here, expired clocks, or no such answer as could be kept.
    pub refused: usize,
}

/// Why the rest cannot be read. What stood before it is kept.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("a predecessor's cache cannot be read: {0}; this server begins with what has been read")]
    Read(#[from] io::Error),
    #[error("what was handed over as a predecessor's cache is none; this server begins with an empty one")]
    NotACache,
    #[error(
        "a predecessor's cache is of format {0}, and this program reads {VERSION}; this server begins with an empty one"
    )]
    Version(u8),
    #[error("a predecessor's cache was written by a clock that is ahead of ours; this server begins with an empty one")]
    Clock,
    #[error("a predecessor's cache is damaged after {0} answers; this server begins with those")]
    Malformed(usize),
    #[error(
        "a predecessor's cache is larger than this server's may be, or takes long to read; this server begins with {0} answers of it"
    )]
    TooMuch(usize),
}

/// Writes what every cache in `carry` holds, as far as the bounds allow.
///
/// # Errors
/// Those of `out`.
pub fn export(
    reload_state: &ReloadState,
    out: &mut impl Write,
    reading: ClockReading,
    bounds: Bounds,
) -> io::Result<TransferCount> {
    let mut count = TransferCount::default();
    let uptime = u64::try_from(reading.uptime.as_millis()).unwrap_or(u64::MAX);
    out.write_all(&[&MAGIC[..], &[VERSION], &uptime.to_be_bytes()].concat())?;
    let mut left = bounds.octets;
    'caches: for (key, kept) in reload_state.all::<Kept>() {
        let Ok(length) = u16::try_from(key.len()) else { continue };
        out.write_all(&[&[SECTION][..], &length.to_be_bytes(), key.as_bytes()].concat())?;
        let now = kept.store.moment(reading.now);
        for shard in kept.store.copies() {
            if Instant::now() >= bounds.until {
                break 'caches;
            }
            for copied in shard {
                let Some(octets) = encode(&copied, now) else {
                    count.refused += 1;
                    continue;
                };
                let Some(rest) = left.checked_sub(octets.len()) else { break 'caches };
                left = rest;
                out.write_all(&octets)?;
                count.kept += 1;
            }
        }
    }
    out.write_all(&[END])?;
    out.flush()?;
    Ok(count)
}

/// `None` for a message that is too long with its OPT record.
fn encode(copied: &Copied<Response>, now: Moment) -> Option<Vec<u8>> {
    let response = &copied.payload;
    let rcode = response.rcode().0;
    let opt = u32::from(rcode >> 4) << 24 | u32::from(response.dnssec_ok()) << 15;
    let mut message = [response.wire(), &OPT_START, &opt.to_be_bytes(), &[0, 0]].concat();
    let length = u16::try_from(message.len()).ok()?;
    let count: [u8; 2] = message.get(ADDITIONAL_COUNT)?.try_into().ok()?;
    message.get_mut(ADDITIONAL_COUNT)?.copy_from_slice(&u16::from_be_bytes(count).checked_add(1)?.to_be_bytes());
    let marks = (u8::from(copied.kind == Kind::Denial) * DENIAL) | (u8::from(copied.is_used) * USED);
    let age = now.millis_since(copied.stored);
    let head =
        [&[ANSWER, marks, copied.flags][..], &copied.ttl.to_be_bytes(), &age.to_be_bytes(), &length.to_be_bytes()];
    Some([&head.concat()[..], &message].concat())
}

/// Reads what [`export`] has written into the caches of the same keys in `carry`, as far as the bounds allow. `input`
/// is never to wait.
///
/// # Errors
/// Nothing more can be read, or is.
pub fn import(
    reload_state: &ReloadState,
    input: &mut impl Read,
    reading: ClockReading,
    bounds: Bounds,
) -> Result<TransferCount, TransferError> {
    let mut count = TransferCount::default();
    let mut input = input.take(bounds.octets.try_into().unwrap_or(u64::MAX));
    match import_all(reload_state, &mut input, reading, bounds.until, &mut count) {
        Err(TransferError::Read(_)) if input.limit() == 0 => Err(TransferError::TooMuch(count.kept)),
        outcome => outcome.map(|()| count),
    }
}

fn import_all(
    reload_state: &ReloadState,
    input: &mut impl Read,
    reading: ClockReading,
    until: Instant,
    count: &mut TransferCount,
) -> Result<(), TransferError> {
    let header: [u8; 13] = take(input).map_err(|_| TransferError::NotACache)?;
    let (magic, rest) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(TransferError::NotACache);
    }
    let (version, written) = rest.split_at(1);
    if version != [VERSION] {
        return Err(TransferError::Version(version.first().copied().unwrap_or_default()));
    }
    let written = Duration::from_millis(written.try_into().map_or(u64::MAX, u64::from_be_bytes));
    let elapsed = reading.uptime.checked_sub(written).ok_or(TransferError::Clock)?;
    let mut kept = None;
    loop {
        if Instant::now() >= until {
            return Err(TransferError::TooMuch(count.kept));
        }
        let [tag] = take(input)?;
        match tag {
            END => return Ok(()),
            SECTION => {
                let key = take_long(input)?;
                let key = String::from_utf8(key).map_err(|_| TransferError::Malformed(count.kept))?;
                kept = reload_state.find::<Kept>(&key);
            }
            ANSWER => {
                let answer = TransferredAnswer::read(input)?;
                let is_kept = kept.as_deref().is_some_and(|kept| adopt(kept, answer, elapsed, reading.now));
                *(if is_kept { &mut count.kept } else { &mut count.refused }) += 1;
            }
            _ => return Err(TransferError::Malformed(count.kept)),
        }
    }
}

/// An answer as it was written, nothing of it checked.
struct TransferredAnswer {
    marks: u8,
    flags: u8,
    ttl: u32,
    age: u64,
    message: Vec<u8>,
}

impl TransferredAnswer {
    fn read(input: &mut impl Read) -> io::Result<Self> {
        let [marks, flags] = take(input)?;
        let ttl = u32::from_be_bytes(take(input)?);
        let age = u64::from_be_bytes(take(input)?);
        Ok(Self { marks, flags, ttl, age, message: take_long(input)? })
    }
}

/// Puts an answer into a cache, if it is one that this cache could have kept itself.
fn adopt(kept: &Kept, answer: TransferredAnswer, elapsed: Duration, now: Instant) -> bool {
    let TransferredAnswer { marks, flags, ttl, age, message } = answer;
    let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let stored = kept.store.moment(now).0.checked_sub(age.saturating_add(elapsed));
    let (Some(stored), Ok(mut payload), Some(key_flags)) =
        (stored, Response::read(&message), KeyFlags::from_bits(flags))
    else {
        return false;
    };
    let kind = if marks & DENIAL == 0 { Kind::Success } else { Kind::Denial };
    let verdict = classify(&payload, crate::chain::unix_seconds);
    let is_well_formed = marks & !(DENIAL | USED) == 0 && (1..=MAX_TTL).contains(&ttl);
    if !is_well_formed || payload.is_truncated() || verdict.class.kind() != Some(kind) {
        return false;
    }
    payload.set_flag(AUTHORITATIVE, false);
    payload.set_flag(CHECKING_DISABLED, key_flags.contains(KeyFlags::CHECKING_DISABLED));
    payload.set_ttls(ttl);
    let name = payload.question_name();
    let question = QuestionKey {
        name: name.as_wire(),
        qtype: payload.question_type(),
        qclass: payload.question_class(),
        flags: key_flags,
    };
    let key = kept.store.key(question);
    let (is_used, answering) = (marks & USED != 0, verdict.answering);
    kept.store.adopt(&key, Copied { payload, kind, flags, ttl, answering, stored: Moment(stored), is_used })
}

fn take<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    input.read_exact(&mut octets)?;
    Ok(octets)
}

/// Octets after their length.
fn take_long(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; usize::from(u16::from_be_bytes(take(input)?))];
    input.read_exact(&mut octets)?;
    Ok(octets)
}

#[cfg(test)]
mod tests;
