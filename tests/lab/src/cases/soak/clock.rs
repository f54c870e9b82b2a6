//! The machine's clock, and the machine as a whole, of one that was booted for it alone.

use crate::channel::PLAN;
use crate::cluster::shell;
use crate::guest::case::{note, suspend};
use crate::node::settled;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// False on somebody's own machine.
fn is_ours() -> bool {
    let is_ours = Path::new(PLAN).exists();
    if !is_ours {
        note("not done: this machine is not the lab's");
    }
    is_ours
}

/// Has the machine stand still, and comes back when it has.
pub fn suspend_machine(time: Duration) {
    if !is_ours() {
        return;
    }
    suspend(time);
    let mut last = Instant::now();
    let has_stood_still = || {
        let now = Instant::now();
        now - std::mem::replace(&mut last, now) > time / 2
    };
    settled("the machine has stood still", has_stood_still, String::new);
}

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
        if !is_ours() {
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
