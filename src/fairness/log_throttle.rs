//! Lets a log line through once a minute, for events that happen many times a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(60);

/// When it was last told.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    /// Times are counted from here.
    epoch: Instant,
    /// Milliseconds after the epoch from which on it may be told again.
    due: AtomicU64,
}

impl LogThrottle {
    pub(crate) fn new(now: Instant) -> Self {
        Self { epoch: now, due: AtomicU64::new(0) }
    }

    /// True for the one who is to tell it now: at the first call, and no more than once a minute.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (now, due) = (millis(now.saturating_duration_since(self.epoch)), self.due.load(Ordering::Relaxed));
        now >= due && self.due.compare_exchange(due, now + millis(PAUSE), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
