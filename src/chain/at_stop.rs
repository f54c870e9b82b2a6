//! What is still to be said when a process ends: directives that write somewhere from a thread of their own.

use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Somebody who may hold what is not written yet.
pub trait Flush: Send + Sync {
    /// Asks for all to be written now. Must not block.
    fn begin_flush(&self);
    /// Waits until it is, at most until `deadline`.
    fn wait_flushed(&self, deadline: Instant);
}

/// All of a process, held weakly.
#[derive(Clone, Default)]
pub struct AtStop(Arc<Mutex<Vec<Weak<dyn Flush>>>>);

impl AtStop {
    /// Adds one.
    pub fn add(&self, who: Weak<dyn Flush>) {
        let mut all = self.0.lock();
        all.retain(|one| one.strong_count() > 0);
        all.push(who);
    }

    /// Has all of them write what they hold, and waits for that, at most until `deadline`. Blocks the thread.
    pub fn flush(&self, deadline: Instant) {
        let all: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|one| one.begin_flush());
        all.iter().for_each(|one| one.wait_flushed(deadline));
    }
}
