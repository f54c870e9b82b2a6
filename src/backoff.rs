//! Pauses that double after each failure, up to a limit. No clock here.

use std::time::Duration;

/// The pause after so many failures in a row: `first` after one, `longest` at most.
pub(crate) fn pause_after(failures: u32, first: Duration, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(longest)
}

/// The pauses between the attempts at one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Counts a failure and returns the pause after it.
    pub(crate) fn next_pause(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        pause_after(self.failures, self.first, self.longest)
    }

    /// The next pause is the first one again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, pause_after};
    use std::time::Duration;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let mut seconds = || backoff.next_pause().as_secs();
        assert_eq!([(); 5].map(|()| seconds()), [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.next_pause(), Duration::from_secs(1));
    }

    #[test]
    fn no_number_of_failures_overflows() {
        for failures in [33, u32::MAX] {
            assert_eq!(pause_after(failures, Duration::MAX, Duration::MAX), Duration::MAX);
            assert_eq!(pause_after(failures, Duration::from_millis(1), Duration::from_secs(1)), Duration::from_secs(1));
        }
    }
}
