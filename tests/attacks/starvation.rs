//! Whether the machine lets the program run: others may share it, and a server that gets no processor is one that hangs
//! to its watchdog. That is then the machine's doing. Attackers give way (nice), so that they are not who keeps it
//! waiting.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Less than a server may hang.
const WINDOW: Duration = Duration::from_millis(400);

/// A share of waiting that a program's own threads do not come to, on two processors.
pub const TOO_MUCH: f64 = 0.6;

/// A server that uses so much of all processors keeps itself waiting.
const BUSY: f64 = 0.4;

/// What part of some window a thread waited for a processor that others had.
#[derive(Default)]
pub struct Waits {
    samples: VecDeque<Sample>,
    worst: f64,
}

/// Nanoseconds so far.
struct Sample {
    at: Instant,
    /// That each thread has waited.
    waited: HashMap<u32, u64>,
    /// That all together have run.
    run: u64,
}

impl Waits {
    /// Looks at the threads of a process, which may be another than before.
    pub fn look(&mut self, pid: i32) {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut sample = Sample { at: Instant::now(), waited: HashMap::new(), run: 0 };
        for task in tasks {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let numbers: Vec<u64> = stat.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            let thread = task.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(thread), [run, waited, ..]) = (thread, &numbers[..]) {
                sample.run += run;
                sample.waited.insert(thread, *waited);
            }
        }
        self.note(sample, std::thread::available_parallelism().map_or(1, usize::from));
    }

    fn note(&mut self, sample: Sample, processors: usize) {
        while self.samples.get(1).is_some_and(|second| sample.at - second.at >= WINDOW) {
            self.samples.pop_front();
        }
        if let Some(before) = self.samples.front().filter(|before| sample.at - before.at >= WINDOW) {
            let window = (sample.at - before.at).as_nanos() as f64;
            let share = |after: u64, before: u64| after.saturating_sub(before) as f64 / window;
            if share(sample.run, before.run) < BUSY * processors as f64 {
                let shares = sample
                    .waited
                    .iter()
                    .filter_map(|(thread, waited)| Some(share(*waited, *before.waited.get(thread)?)));
                self.worst = shares.fold(self.worst, f64::max);
            }
        }
        self.samples.push_back(sample);
    }

    /// Of all windows.
    pub fn worst(&self) -> f64 {
        self.worst
    }
}

#[test]
fn the_share_of_the_worst_window_is_told() {
    let (mut waits, started) = (Waits::default(), Instant::now());
    let mut note = |milliseconds: u64, waited: u64, run: u64| {
        let waited = HashMap::from([(3, waited * 1_000_000), (7, waited / 2 * 1_000_000)]);
        waits.note(Sample { at: started + Duration::from_millis(milliseconds), waited, run: run * 1_000_000 }, 2);
        waits.worst()
    };
    assert_eq!([note(0, 5, 0), note(100, 50, 0), note(300, 50, 0)], [0.0; 3], "no window is over");
    assert_eq!(note(400, 105, 0), 0.25);
    assert_eq!(note(500, 350, 0), 0.75, "400 ms from the second sample on");
    assert_eq!(note(900, 750, 500), 0.75, "it kept itself waiting");
    assert_eq!(note(1300, 1100, 600), 0.875);
}
