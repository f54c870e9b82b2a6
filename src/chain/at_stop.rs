//! Lets directives that write from a thread of their own (`dnstap`, `trace`) write what they still hold when the
//! process ends.

use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::Notify;

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

/// The end of such a thread: it is asked for, and later has come.
#[derive(Default)]
pub(crate) struct Ending {
    is_asked: AtomicBool,
    asked: Notify,
    has_come: Mutex<bool>,
    came: Condvar,
}

impl Ending {
    /// The thread is to write what it holds, and end.
    pub(crate) fn ask(&self) {
        self.is_asked.store(true, Ordering::Release);
        self.asked.notify_one();
    }

    /// Whether that was said.
    pub(crate) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Acquire)
    }

    /// Waits until it is. May be dropped and called again at any time, by one task.
    pub(crate) async fn asked(&self) {
        while !self.is_asked() {
            self.asked.notified().await;
        }
    }

    /// The thread has written all that it could.
    pub(crate) fn set_come(&self) {
        *self.has_come.lock() = true;
        self.came.notify_all();
    }

    /// Waits for that, at most until `deadline`. Blocks the thread.
    pub(crate) fn wait(&self, deadline: Instant) {
        let mut has_come = self.has_come.lock();
        while !*has_come && !self.came.wait_until(&mut has_come, deadline).timed_out() {}
    }
}
