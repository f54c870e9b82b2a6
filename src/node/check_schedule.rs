//! When the firewall, or the link, is checked next. A change is followed by a check at once, but one who changes the
//! firewall all the time, puts his rules before ours or takes away what is ours again and again, causes ever fewer.
//! Pure.

use crate::backoff::pause_after;
use std::time::{Duration, Instant};

/// The shortest time between two looks that are for others' changes: somebody who fills a table makes many.
const QUIET: Duration = Duration::from_secs(1);
/// After something of ours was put back, the next time is at least so much later; each time within [`PEACE`], twice as
/// long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Who leaves ours in peace for so long fights no more.
const PEACE: Duration = Duration::from_secs(120);
/// So many times in a row are a fight, of which somebody should know.
const FIGHT: u32 = 4;

/// Why it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It is time for it.
    Now,
    /// Something of ours may be gone.
    Prompt,
    /// Others have changed what is theirs.
    Calm,
}

/// When the next look is due.
#[derive(Debug)]
pub(super) struct CheckSchedule {
    due: Option<Instant>,
    /// Somebody has been told that it is due.
    is_announced: bool,
    began: Option<Instant>,
    /// The longest pause after something was put back.
    longest_pause: Duration,
    /// Something has been put back so many times without peace between.
    put_back: u32,
    put_at: Option<Instant>,
}

impl CheckSchedule {
    /// The first look is due at once; looks after which something was put back are up to `longest_pause` apart.
    pub(super) fn new(now: Instant, longest_pause: Duration) -> Self {
        Self { due: Some(now), is_announced: false, began: None, longest_pause, put_back: 0, put_at: None }
    }

    /// A look is wanted; the earliest time that is allowed counts.
    pub(super) fn want(&mut self, urgency: Urgency, now: Instant) {
        if urgency != Urgency::Now && self.put_at.is_some_and(|at| now >= at + PEACE) {
            self.put_back = 0;
        }
        let pause = match self.put_back {
            0 => Duration::ZERO,
            times => pause_after(times, FIRST_PAUSE, self.longest_pause),
        };
        let earliest = match urgency {
            Urgency::Now => now,
            Urgency::Prompt => self.after(pause, now),
            Urgency::Calm => self.after(pause.max(QUIET), now),
        };
        if self.due.is_none_or(|due| earliest < due) {
            self.due = Some(earliest);
            self.is_announced = false;
        }
    }

    /// When somebody is to be told to look; none if nothing asks for it.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_announced)
    }

    /// Whoever should look has been told: once is enough.
    pub(super) fn announce(&mut self) {
        self.is_announced = true;
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// A look begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.due = None;
        self.began = Some(now);
    }

    /// It has ended, and something had to be put in, or not. True when that has become a fight.
    pub(super) fn end(&mut self, has_put: bool, now: Instant) -> bool {
        if !has_put {
            return false;
        }
        // The first time they were not there.
        if self.put_at.is_some() {
            self.put_back = self.put_back.saturating_add(1);
        }
        self.put_at = Some(now);
        self.put_back == FIGHT
    }

    fn after(&self, pause: Duration, now: Instant) -> Instant {
        self.began.map_or(now, |began| now.max(began + pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST_PAUSE: Duration = Duration::from_secs(60);

    /// Looks whenever it is due while somebody interferes each 10 ms for `total`; how many times, and whether it was
    /// called a fight.
    fn fight(total: Duration, urgency: Urgency, takes_away: bool) -> (usize, usize) {
        let start = Instant::now();
        let (mut schedule, mut looks, mut told) = (CheckSchedule::new(start, LONGEST_PAUSE), 0, 0);
        let mut elapsed = Duration::ZERO;
        while elapsed < total {
            let now = start + elapsed;
            if schedule.is_due(now) {
                schedule.begin(now);
                looks += 1;
                told += usize::from(schedule.end(takes_away, now));
            }
            elapsed += Duration::from_millis(10);
            schedule.want(urgency, start + elapsed);
        }
        (looks, told)
    }

    #[test]
    fn the_first_look_is_due_at_once_and_the_next_when_something_happens() {
        let now = Instant::now();
        let mut schedule = CheckSchedule::new(now, LONGEST_PAUSE);
        assert!(schedule.is_due(now));
        schedule.begin(now);
        assert_eq!(schedule.due_at(), None);
        schedule.want(Urgency::Prompt, now + Duration::from_millis(1));
        assert!(schedule.is_due(now + Duration::from_millis(1)), "what is gone is put back at once");
    }

    #[test]
    fn somebody_who_wants_to_be_first_is_answered_ever_more_seldom_and_told_of_once() {
        let (looks, told) = fight(Duration::from_secs(600), Urgency::Prompt, true);
        assert!((10..=22).contains(&looks), "{looks}");
        assert_eq!(told, 1);
    }

    #[test]
    fn others_changes_are_looked_at_once_a_second() {
        let (looks, told) = fight(Duration::from_secs(10), Urgency::Calm, false);
        assert!((10..=11).contains(&looks), "{looks}");
        assert_eq!(told, 0);
    }

    #[test]
    fn after_a_time_of_peace_it_begins_anew() {
        let mut now = Instant::now();
        let mut schedule = CheckSchedule::new(now, LONGEST_PAUSE);
        for _ in 0..10 {
            schedule.begin(now);
            schedule.end(true, now);
            schedule.want(Urgency::Prompt, now);
            now = schedule.due_at().unwrap();
        }
        schedule.begin(now);
        now += PEACE * 2;
        schedule.want(Urgency::Prompt, now);
        schedule.begin(now);
        schedule.end(true, now);
        schedule.want(Urgency::Prompt, now);
        assert_eq!(schedule.due_at(), Some(now + FIRST_PAUSE));
    }

    #[test]
    fn who_has_been_told_is_told_no_second_time_and_may_look_all_the_same() {
        let now = Instant::now();
        let mut schedule = CheckSchedule::new(now, LONGEST_PAUSE);
        schedule.announce();
        assert_eq!(schedule.due_at(), None);
        assert!(schedule.is_due(now));
        schedule.begin(now);
        schedule.want(Urgency::Calm, now);
        assert_eq!(schedule.due_at(), Some(now + QUIET));
    }

    #[test]
    fn a_look_that_is_due_sooner_is_not_put_off() {
        let now = Instant::now();
        let mut schedule = CheckSchedule::new(now, LONGEST_PAUSE);
        schedule.begin(now);
        schedule.want(Urgency::Calm, now);
        assert_eq!(schedule.due_at(), Some(now + QUIET));
        schedule.want(Urgency::Now, now);
        schedule.want(Urgency::Calm, now);
        assert!(schedule.is_due(now));
    }
}
