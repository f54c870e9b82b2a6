//! Protection against spoofed responses (RFC 5452). Once somebody seems to guess the answers to a question, it is asked
//! over TCP for a while and no datagram answers it. No I/O here; the clock is the caller's.

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Responses with a wrong ID or question after which a socket is given up. PowerDNS allows 1 for a query
/// (`spoof-nearmiss-max`); a socket here has many queries.
pub(super) const NEAR_MISS_LIMIT: u32 = 3;
/// How long a question is asked over TCP only. This is longer than any query is in flight, so the queries of before
/// have ended by then.
const TCP_ONLY: Duration = Duration::from_secs(10);
/// Questions that are remembered. A later one may replace an earlier one.
const CAPACITY: usize = 1024;
/// Time between two log lines about one upstream.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The questions that one upstream is asked over TCP only. Costs next to nothing while there are none.
#[derive(Default)]
pub(super) struct SpoofGuard {
    has_questions: AtomicBool,
    questions: Mutex<Questions>,
    log: Mutex<SpoofLog>,
}

#[derive(Default)]
struct Questions {
    hasher: RandomState,
    /// Hash and end of each question, at the index that the hash gives. Empty, or [`CAPACITY`] slots.
    slots: Vec<Option<(u64, Instant)>>,
    /// The end of the latest question.
    last_end: Option<Instant>,
}

/// What happened since the last log line.
#[derive(Default)]
struct SpoofLog {
    last: Option<Instant>,
    sockets: u64,
    queries: u64,
}

/// The content of one log line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SpoofReport {
    /// Sockets that were given up since the last report.
    pub sockets: u64,
    /// Queries that were in flight on them.
    pub queries: u64,
}

impl SpoofGuard {
    /// From now on `question` (name, type and class in wire form) is asked over TCP only.
    pub(super) fn require_tcp(&self, question: &[u8], now: Instant) {
        let mut questions = self.questions.lock();
        if questions.slots.is_empty() {
            questions.slots = vec![None; CAPACITY];
        }
        let hash = questions.hasher.hash_one(question);
        let end = now + TCP_ONLY;
        questions.slots[hash as usize % CAPACITY] = Some((hash, end));
        questions.last_end = Some(end);
        self.has_questions.store(true, Ordering::Relaxed);
    }

    /// True if no datagram may answer `question`.
    pub(super) fn requires_tcp(&self, question: &[u8], now: Instant) -> bool {
        if !self.has_questions.load(Ordering::Relaxed) {
            return false;
        }
        let mut questions = self.questions.lock();
        if questions.last_end.is_none_or(|end| now >= end) {
            self.has_questions.store(false, Ordering::Relaxed);
            questions.slots = Vec::new();
            return false;
        }
        let hash = questions.hasher.hash_one(question);
        let slot = questions.slots.get(hash as usize % CAPACITY);
        matches!(slot, Some(Some((known, end))) if *known == hash && now < *end)
    }

    /// Counts a socket that was given up with so many queries in flight. Returns what to log, at most once a minute.
    pub(super) fn report(&self, queries: usize, now: Instant) -> Option<SpoofReport> {
        let mut log = self.log.lock();
        log.sockets += 1;
        log.queries += queries as u64;
        if log.last.is_some_and(|last| now.saturating_duration_since(last) < LOG_INTERVAL) {
            return None;
        }
        let SpoofLog { sockets, queries, .. } =
            std::mem::replace(&mut *log, SpoofLog { last: Some(now), ..SpoofLog::default() });
        Some(SpoofReport { sockets, queries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_requires_tcp_for_a_while_and_others_do_not() {
        let (guard, start) = (SpoofGuard::default(), Instant::now());
        assert!(!guard.requires_tcp(b"a", start));
        guard.require_tcp(b"a", start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(guard.requires_tcp(b"a", after(9)) && !guard.requires_tcp(b"b", after(9)));
        guard.require_tcp(b"b", after(9));
        assert!(!guard.requires_tcp(b"a", after(10)) && guard.requires_tcp(b"b", after(10)));
        assert!(!guard.requires_tcp(b"b", after(19)));
        assert!(guard.questions.lock().slots.is_empty(), "ended questions take no memory");
        guard.require_tcp(b"a", after(20));
        assert!(guard.requires_tcp(b"a", after(20)));
    }

    #[test]
    fn memory_is_bounded_whatever_the_number_of_questions() {
        let (guard, now) = (SpoofGuard::default(), Instant::now());
        for number in 0..100_000_u32 {
            guard.require_tcp(&number.to_be_bytes(), now);
        }
        assert_eq!(guard.questions.lock().slots.len(), CAPACITY);
        assert!(guard.requires_tcp(&99_999_u32.to_be_bytes(), now));
    }

    #[test]
    fn one_report_a_minute_counts_everything_since_the_last() {
        let (guard, start) = (SpoofGuard::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(guard.report(5, start), Some(SpoofReport { sockets: 1, queries: 5 }));
        assert_eq!((guard.report(1, after(1)), guard.report(2, after(59))), (None, None));
        assert_eq!(guard.report(3, after(60)), Some(SpoofReport { sockets: 3, queries: 6 }));
    }
}
