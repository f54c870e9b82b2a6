//! What all workers have recorded over the last hour: stretches that are over, shorter ones summed up into longer ones.

use super::tally::{KEPT, SUM, Tally};
use std::collections::VecDeque;
use std::time::Duration;

/// Of one stretch.
pub(crate) const STRETCH: Duration = Duration::from_secs(10);
/// Stretches of a minute, and ten minutes of an hour.
const SIXTH: usize = 6;
/// Minutes of ten minutes.
const TEN: usize = 10;

/// A stretch of time.
#[derive(Clone)]
struct Stretch {
    took: Duration,
    tally: Tally,
}

impl Stretch {
    fn sum<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self { took: Duration::ZERO, tally: Tally::with_room(SUM) };
        for part in parts {
            sum.took += part.took;
            sum.tally.merge(&part.tally);
        }
        sum
    }
}

/// Each list has the newest last.
#[derive(Default)]
pub(super) struct History {
    stretches: VecDeque<Stretch>,
    /// Those of them that no minute has yet.
    new_stretches: usize,
    minutes: VecDeque<Stretch>,
    new_minutes: usize,
    tens: VecDeque<Stretch>,
}

/// How far back is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    Minute,
    TenMinutes,
    Hour,
}

impl History {
    /// Takes a stretch that is over and took so long.
    pub(super) fn push(&mut self, took: Duration, mut tally: Tally) {
        tally.finish();
        push(&mut self.stretches, SIXTH, Stretch { took, tally });
        self.new_stretches += 1;
        if self.new_stretches == SIXTH {
            self.new_stretches = 0;
            push(&mut self.minutes, TEN, finished(Stretch::sum(&self.stretches)));
            self.new_minutes += 1;
        }
        if self.new_minutes == TEN {
            self.new_minutes = 0;
            push(&mut self.tens, SIXTH, finished(Stretch::sum(&self.minutes)));
        }
    }

    /// The sum over a window, the present stretch, which has taken so long yet, included. It is as long as the window,
    /// and up to a part of it longer.
    pub(super) fn sum(&self, window: Window, took: Duration, present: &Tally) -> (Duration, Tally) {
        let newest = |list: &'_ VecDeque<Stretch>, count: usize| list.len().saturating_sub(count)..list.len();
        let present = Stretch { took, tally: present.clone() };
        let (stretches, minutes, tens) = match window {
            Window::Minute => (SIXTH, 0, 0),
            Window::TenMinutes => (self.new_stretches, TEN, 0),
            Window::Hour => (self.new_stretches, self.new_minutes, SIXTH),
        };
        let parts = self.tens.range(newest(&self.tens, tens));
        let parts = parts.chain(self.minutes.range(newest(&self.minutes, minutes)));
        let parts = parts.chain(self.stretches.range(newest(&self.stretches, stretches)));
        let Stretch { took, tally } = Stretch::sum(parts.chain([&present]));
        (took, tally)
    }

    /// Octets of memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let all = self.stretches.iter().chain(&self.minutes).chain(&self.tens);
        all.map(|stretch| stretch.tally.memory()).sum()
    }
}

fn finished(mut stretch: Stretch) -> Stretch {
    stretch.tally.finish();
    stretch
}

fn push(list: &mut VecDeque<Stretch>, most: usize, stretch: Stretch) {
    if list.len() == most {
        list.pop_front();
    }
    list.push_back(stretch);
}

const _: () = assert!(KEPT.keys <= SUM.keys && KEPT.octets <= SUM.octets);
