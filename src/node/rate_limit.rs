//! Logs what happens over and over once, then at intervals with its number. Pure.

use std::time::{Duration, Instant};

/// How often the same is told at most.
const INTERVAL: Duration = Duration::from_secs(60);

/// Counts what happens, and says when to tell of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RateLimit {
    told: Option<Instant>,
    untold: u64,
}

impl RateLimit {
    /// It has happened once more.
    pub(crate) fn add(&mut self) {
        self.untold = self.untold.saturating_add(1);
    }

    /// How often it has happened since it was last told, if that is to be told now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.untold == 0 || self.is_recent(now) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }

    /// [`RateLimit::add`], and whether it is to be told.
    pub(crate) fn count(&mut self, now: Instant) -> Option<u64> {
        self.add();
        self.due(now)
    }

    /// Whether it was told a moment ago.
    pub(crate) fn is_recent(&self, now: Instant) -> bool {
        self.told.is_some_and(|told| now.saturating_duration_since(told) < INTERVAL)
    }
}

/// How a line goes on that tells of `count`.
pub(crate) fn times(count: u64) -> String {
    if count > 1 { format!(" ({count} times since this was last told)") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_rest_together_once_a_minute() {
        let (start, mut limit) = (Instant::now(), RateLimit::default());
        let at = |milliseconds: u64| start + Duration::from_millis(milliseconds);
        assert_eq!(limit.due(at(0)), None, "nothing has happened");
        assert_eq!(limit.count(at(0)), Some(1));
        let told: Vec<u64> = (1..=7_200).filter_map(|number| limit.count(at(number * 1_000 / 60))).collect();
        assert_eq!(told, [3_600, 3_600], "sixty a second, for two minutes");
        assert_eq!(limit.count(at(125_000)), None);
        assert_eq!(limit.due(at(179_000)), None);
        assert_eq!(limit.due(at(180_000)), Some(1), "the last ones are told too");
        assert_eq!(limit.due(at(500_000)), None);
        assert_eq!(limit.count(at(500_000)), Some(1));
    }

    #[test]
    fn a_line_says_how_often_if_more_than_once() {
        assert_eq!(times(1), "");
        assert_eq!(times(412), " (412 times since this was last told)");
    }
}
