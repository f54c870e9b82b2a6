//! Questions whose answers somebody seems to be guessing (RFC 5452): for a while no datagram answers them. No I/O here; the clock is the caller's.

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Datagrams with a wrong ID or question that a socket may get while queries are in flight on it. PowerDNS allows 1, for one query
/// (`spoof-nearmiss-max`); a socket here has many.
pub const NEAR_MISSES: u32 = 3;
/// How long a question is asked over TCP alone. Longer than a query is in flight, so that those that were asked before are over.
const SUSPECTED: Duration = Duration::from_secs(10);
/// Questions that are remembered; a later one may take another's place.
const REMEMBERED: usize = 1024;
/// Pause between two log lines about one upstream.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// The questions to one upstream that are asked over TCP alone. Costs next to nothing while there is none.
#[derive(Default)]
pub struct Suspects {
    /// False: there is none.
    any: AtomicBool,
    questions: Mutex<Questions>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Questions {
    hasher: RandomState,
    /// By the hash of each, in the place that it gives; empty or [`REMEMBERED`].
    places: Vec<Option<(u64, Instant)>>,
    /// Until when any is suspected.
    until: Option<Instant>,
}

/// What was logged, and what was not.
#[derive(Default)]
struct Log {
    last: Option<Instant>,
    sockets: u64,
    queries: u64,
}

/// What is to be logged.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// Sockets that were given up since the last notice.
    pub sockets: u64,
    /// Queries that were in flight on them.
    pub queries: u64,
}

impl Suspects {
    /// From now on `question` (name, type and class in wire form) is suspected.
    pub fn add(&self, question: &[u8], now: Instant) {
        let mut questions = self.questions.lock();
        if questions.places.is_empty() {
            questions.places = vec![None; REMEMBERED];
        }
        let hash = questions.hasher.hash_one(question);
        let until = now + SUSPECTED;
        questions.places[hash as usize % REMEMBERED] = Some((hash, until));
        questions.until = Some(until);
        self.any.store(true, Ordering::Relaxed);
    }

    /// True if a datagram does not answer `question`.
    pub fn holds(&self, question: &[u8], now: Instant) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let mut questions = self.questions.lock();
        if questions.until.is_none_or(|until| now >= until) {
            self.any.store(false, Ordering::Relaxed);
            questions.places = Vec::new();
            return false;
        }
        let hash = questions.hasher.hash_one(question);
        let place = questions.places.get(hash as usize % REMEMBERED);
        matches!(place, Some(Some((held, until))) if *held == hash && now < *until)
    }

    /// Notes that a socket with so many queries was given up; tells what to log, once in a while.
    pub fn note(&self, queries: usize, now: Instant) -> Option<Notice> {
        let mut log = self.log.lock();
        log.sockets += 1;
        log.queries += queries as u64;
        if log.last.is_some_and(|last| now.saturating_duration_since(last) < LOG_PAUSE) {
            return None;
        }
        let Log { sockets, queries, .. } = std::mem::replace(&mut *log, Log { last: Some(now), ..Log::default() });
        Some(Notice { sockets, queries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_suspected_for_a_while_and_no_other_one() {
        let (suspects, start) = (Suspects::default(), Instant::now());
        assert!(!suspects.holds(b"a", start));
        suspects.add(b"a", start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(suspects.holds(b"a", after(9)) && !suspects.holds(b"b", after(9)));
        suspects.add(b"b", after(9));
        assert!(!suspects.holds(b"a", after(10)) && suspects.holds(b"b", after(10)));
        assert!(!suspects.holds(b"b", after(19)));
        assert!(suspects.questions.lock().places.is_empty(), "what is over takes no memory");
        suspects.add(b"a", after(20));
        assert!(suspects.holds(b"a", after(20)));
    }

    #[test]
    fn suspects_take_no_more_room_whatever_their_number() {
        let (suspects, now) = (Suspects::default(), Instant::now());
        for number in 0..100_000_u32 {
            suspects.add(&number.to_be_bytes(), now);
        }
        assert_eq!(suspects.questions.lock().places.len(), REMEMBERED);
        assert!(suspects.holds(&99_999_u32.to_be_bytes(), now));
    }

    #[test]
    fn one_line_a_minute_tells_of_all() {
        let (suspects, start) = (Suspects::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(suspects.note(5, start), Some(Notice { sockets: 1, queries: 5 }));
        assert_eq!((suspects.note(1, after(1)), suspects.note(2, after(59))), (None, None));
        assert_eq!(suspects.note(3, after(60)), Some(Notice { sockets: 3, queries: 6 }));
    }
}
