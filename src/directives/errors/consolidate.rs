//! Consolidates errors that match a pattern into one log line a period. Pure: the time is passed in.

use crate::chain::Level;
use crate::corefile::GoDuration;
use crate::go_regex::Regex;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// `consolidate DURATION REGEXP [LEVEL] [show_first]`.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// From the first error to the summary.
    pub(super) period: Duration,
    pub(super) regex: Regex,
    pub(super) level: Level,
    /// The first error of a period is told at once.
    pub(super) shows_first: bool,
}

/// A pattern and the errors that matched it.
pub(super) struct Consolidation {
    pub(super) pattern: Pattern,
    pending: Mutex<PendingSummary>,
}

#[derive(Default)]
struct PendingSummary {
    count: u64,
    /// When the summary is due. None: nothing has been counted.
    due: Option<Instant>,
    is_stopped: bool,
}

/// What becomes of an error that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ErrorOutcome {
    /// It is told at once.
    pub(super) is_told: bool,
    /// A period has begun with it.
    pub(super) begins: bool,
}

impl Consolidation {
    pub(super) fn new(pattern: Pattern) -> Self {
        Self { pattern, pending: Mutex::default() }
    }

    /// Counts an error.
    pub(super) fn record(&self, now: Instant) -> ErrorOutcome {
        let mut pending = self.pending.lock();
        if pending.is_stopped {
            return ErrorOutcome { is_told: true, begins: false };
        }
        pending.count += 1;
        let begins = pending.due.is_none();
        if begins {
            pending.due = Some(now + self.pattern.period);
        }
        ErrorOutcome { is_told: begins && self.pattern.shows_first, begins }
    }

    /// When the summary is due, if errors have been counted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.pending.lock().due
    }

    /// The summary, if it is due; a period ends with it.
    pub(super) fn take_due(&self, now: Instant) -> Option<String> {
        let mut pending = self.pending.lock();
        pending.due.filter(|due| *due <= now)?;
        self.take(&mut pending)
    }

    /// The summary of what has been counted until now. From here on every error is told at once.
    pub(super) fn stop(&self) -> Option<String> {
        let mut pending = self.pending.lock();
        pending.is_stopped = true;
        self.take(&mut pending)
    }

    fn take(&self, pending: &mut PendingSummary) -> Option<String> {
        pending.due = None;
        let count = std::mem::take(&mut pending.count);
        let told_already = u64::from(self.pattern.shows_first);
        (count > told_already).then(|| {
            let Pattern { regex, period, .. } = &self.pattern;
            format!("{count} errors like '{regex}' occurred in last {}", GoDuration(*period))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Consolidation, ErrorOutcome, Pattern};
    use crate::chain::Level;
    use std::time::{Duration, Instant};

    const PERIOD: Duration = Duration::from_secs(300);

    fn consolidation(shows_first: bool) -> Consolidation {
        let regex = crate::go_regex::compile(".* i/o timeout$").unwrap();
        Consolidation::new(Pattern { period: PERIOD, regex, level: Level::Warning, shows_first })
    }

    #[test]
    fn errors_are_withheld_until_the_period_from_the_first_is_over() {
        let (consolidation, start) = (consolidation(false), Instant::now());
        assert_eq!(consolidation.due(), None);
        assert_eq!(consolidation.record(start), ErrorOutcome { is_told: false, begins: true });
        assert_eq!(consolidation.record(start + PERIOD / 2), ErrorOutcome { is_told: false, begins: false });
        assert_eq!(consolidation.due(), Some(start + PERIOD));
        assert_eq!(consolidation.take_due(start + PERIOD - Duration::from_nanos(1)), None);
        let summary = consolidation.take_due(start + PERIOD).unwrap();
        assert_eq!(summary, "2 errors like '.* i/o timeout$' occurred in last 5m0s");
        assert_eq!((consolidation.due(), consolidation.take_due(start + PERIOD * 2)), (None, None));
        assert_eq!(consolidation.record(start + PERIOD * 3), ErrorOutcome { is_told: false, begins: true });
        assert_eq!(consolidation.due(), Some(start + PERIOD * 4));
    }

    #[test]
    fn a_single_error_is_summed_up_too_unless_it_was_shown() {
        let start = Instant::now();
        let (hidden, shown) = (consolidation(false), consolidation(true));
        assert!(!hidden.record(start).is_told);
        assert!(shown.record(start).is_told);
        let end = start + PERIOD;
        assert_eq!(hidden.take_due(end).unwrap(), "1 errors like '.* i/o timeout$' occurred in last 5m0s");
        assert_eq!(shown.take_due(end), None);
        assert_eq!(shown.due(), None, "the period is over all the same");
        assert!(shown.record(end).is_told);
        assert!(!shown.record(end).is_told);
        assert!(shown.take_due(end + PERIOD).unwrap().starts_with("2 errors like"));
    }

    #[test]
    fn a_stopped_consolidation_sums_up_early_and_withholds_nothing_more() {
        let (consolidation, start) = (consolidation(false), Instant::now());
        consolidation.record(start);
        assert!(consolidation.stop().unwrap().starts_with("1 errors"));
        assert_eq!(consolidation.stop(), None);
        assert_eq!(consolidation.record(start), ErrorOutcome { is_told: true, begins: false });
        assert_eq!(consolidation.due(), None);
    }
}
