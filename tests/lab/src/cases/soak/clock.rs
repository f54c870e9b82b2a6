//! The machine's clock, and the machine as a whole, of one that was booted for it alone.

use crate::channel::{CLOCK_OF_INSTRUCTIONS, PLAN};
use crate::cluster::shell;
use crate::guest::case::{kernel_argument, note, suspend};
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

/// Has the machine stand still, and comes back when it has. The clocks of an emulated one stand still with it, so that
/// nothing in it would notice.
pub fn suspend_machine(time: Duration) {
    if !is_ours() {
        return;
    }
    if kernel_argument("lab.clock").as_deref() == Some(CLOCK_OF_INSTRUCTIONS) {
        note("not done: the clocks of an emulated machine stand still with it");
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
