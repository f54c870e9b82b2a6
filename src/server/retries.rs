//! Retries what has failed until it succeeds: when, and which errors are logged. Pure.

use crate::backoff::pause_after;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// After the first failure; after each further one that is the same, twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// But no longer than this: what is missing may be there by now, and nobody tells.
const LONGEST: Duration = Duration::from_secs(60);

/// The tries of one thing.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    /// What the last try failed with, as told.
    errors: Vec<String>,
    /// Tries that ended with the same errors.
    in_vain: u32,
    due: Option<Instant>,
}

impl Retries {
    /// Takes what a try failed with; nothing if all is well. Returns the errors that the try before did not have, to be
    /// told.
    pub(crate) fn take<E: Display>(&mut self, errors: &[E], now: Instant) -> Vec<String> {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let new = errors.iter().filter(|error| !self.errors.contains(error)).cloned().collect();
        self.in_vain = if self.errors == errors { self.in_vain.saturating_add(1) } else { 1 };
        self.due = (!errors.is_empty()).then(|| now + pause_after(self.in_vain, FIRST, LONGEST));
        self.errors = errors;
        new
    }

    /// When to try again; `None` when nothing failed.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::Retries;
    use std::time::{Duration, Instant};

    #[test]
    fn what_fails_again_and_again_is_told_once_and_tried_ever_more_seldom_until_it_succeeds() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        assert_eq!(retries.due(), None);
        let mut take = |errors: &[&str]| {
            let told = retries.take(errors, now);
            (told, retries.due().map(|due| due.duration_since(now).as_secs()))
        };
        assert_eq!(take(&["busy"]), (vec!["busy".to_owned()], Some(1)));
        let pauses: Vec<_> = (0..8).map(|_| take(&["busy"])).collect();
        assert!(pauses.iter().all(|(told, _)| told.is_empty()), "{pauses:?}");
        assert_eq!(pauses.iter().filter_map(|(_, pause)| *pause).collect::<Vec<_>>(), [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(take(&["busy", "no address"]), (vec!["no address".to_owned()], Some(1)));
        assert_eq!(take(&[]), (vec![], None));
        assert_eq!(take(&["busy"]), (vec!["busy".to_owned()], Some(1)), "it had been well, so it is told again");
        for _ in 0..100 {
            take(&["busy"]);
        }
        assert_eq!(retries.due(), Some(now + Duration::from_secs(60)));
    }
}
