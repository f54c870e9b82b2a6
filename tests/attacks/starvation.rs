//! Whether the machine lets the program run: others may share it, and a server that gets no processor is one that hangs to its watchdog. That is then
//! the machine's doing. Attackers give way (nice), so that they are not who keeps it waiting.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Less than a server may hang.
const WINDOW: Duration = Duration::from_millis(400);

/// A share of waiting that a program's own threads do not come to, on two processors.
pub const TOO_MUCH: f64 = 0.6;

/// What part of some window a thread waited for a processor.
#[derive(Default)]
pub struct Waits {
    /// Nanoseconds that each thread has waited so far.
    samples: VecDeque<(Instant, HashMap<u32, u64>)>,
    worst: f64,
}

impl Waits {
    /// Looks at the threads of a process, which may be another than before.
    pub fn look(&mut self, pid: i32) {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let waited = tasks.filter_map(|task| {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some((task.file_name().to_str()?.parse().ok()?, stat.split_whitespace().nth(1)?.parse().ok()?))
        });
        self.note(Instant::now(), waited.collect());
    }

    fn note(&mut self, now: Instant, waited: HashMap<u32, u64>) {
        while self.samples.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.samples.pop_front();
        }
        if let Some((at, before)) = self.samples.front().filter(|(at, _)| now - *at >= WINDOW) {
            let window = (now - *at).as_nanos() as f64;
            let shares =
                waited.iter().filter_map(|(thread, after)| Some(after.saturating_sub(*before.get(thread)?) as f64 / window));
            self.worst = shares.fold(self.worst, f64::max);
        }
        self.samples.push_back((now, waited));
    }

    /// Of all windows.
    pub fn worst(&self) -> f64 {
        self.worst
    }
}

#[test]
fn the_share_of_the_worst_window_is_told() {
    let (mut waits, started) = (Waits::default(), Instant::now());
    let mut note = |milliseconds: u64, waited: u64| {
        let second = (7, waited / 2 * 1_000_000);
        waits.note(started + Duration::from_millis(milliseconds), HashMap::from([(3, waited * 1_000_000), second]));
        waits.worst()
    };
    assert_eq!([note(0, 5), note(100, 50), note(300, 50)], [0.0; 3], "no window is over");
    assert_eq!(note(400, 105), 0.25);
    assert_eq!(note(500, 350), 0.75, "400 ms from the second sample on");
    assert_eq!(note(900, 350), 0.75);
}
