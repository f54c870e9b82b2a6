//! The time of receipt that a batch of datagrams shares, so that the clock is read once a batch.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

/// Messages for which the clock is read once.
const MESSAGES: u32 = 8;

/// When messages were received, and how long ago that is. To read the clock for every hit is a tenth of what the hit
/// costs beside its system calls; read for every eighth, it is late by 2 µs where the first bucket of the duration's
/// histogram ends at 250.
#[derive(Debug)]
pub struct BatchClock {
    received: Instant,
    /// As it was when the clock was read.
    elapsed: Cell<Duration>,
    asked: Cell<u32>,
}

impl BatchClock {
    /// For messages that were received at `now`.
    pub fn start(now: Instant) -> Self {
        Self { received: now, elapsed: Cell::default(), asked: Cell::default() }
    }
    /// When they were received.
    pub fn received(&self) -> Instant {
        self.received
    }
    /// How long ago that is: as of now the first time, then as of at most eight questions ago.
    #[inline]
    pub fn elapsed(&self) -> Duration {
        let asked = self.asked.get();
        if asked.is_multiple_of(MESSAGES) {
            self.elapsed.set(self.received.elapsed());
        }
        self.asked.set(asked.wrapping_add(1));
        self.elapsed.get()
    }
}

/// Seconds since 1970 modulo 2³², as the validity periods of DNSSEC signatures are written (RFC 4034 section 3.1.5).
pub(crate) fn unix_seconds() -> u32 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_read_the_first_time_and_then_for_every_eighth_message() {
        let clock = BatchClock::start(Instant::now() - Duration::from_secs(1));
        let first = clock.elapsed();
        assert!(first >= Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(2));
        assert!((1..MESSAGES).all(|_| clock.elapsed() == first));
        assert!(clock.elapsed() > first);
    }
}
