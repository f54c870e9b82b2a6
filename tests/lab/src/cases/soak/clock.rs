//! The machine's clock. Only that of a machine that was booted for it is ever set.

use crate::channel::PLAN;
use crate::cluster::shell;
use crate::guest::case::note;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// What the clock would say had nobody set it.
pub struct Clock {
    base: SystemTime,
    since: Instant,
}

impl Clock {
    pub fn new() -> Self {
        Self { base: SystemTime::now(), since: Instant::now() }
    }

    /// Sets it `seconds` ahead, or behind, for a while, and right again.
    pub fn jump(&self, seconds: i64, time: Duration) {
        if !Path::new(PLAN).exists() {
            note("no clock is set: this machine is not the lab's");
            return;
        }
        self.set(seconds);
        std::thread::sleep(time);
        self.set(0);
    }

    fn set(&self, ahead: i64) {
        let right = self.base + self.since.elapsed();
        let right = right.duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970").as_secs();
        shell(&format!("date -s @{} >/dev/null", right.saturating_add_signed(ahead)));
    }
}
