//! Whether the machine lets threads run at all: other programs' tests may share it, and a server that gets no processor is one that hangs to its
//! watchdog. That is then the machine's doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const NAP: Duration = Duration::from_millis(10);

/// Longer than a thread that mostly sleeps ever waits on a machine that only these tests have; half as long as a server may hang.
pub const TOO_LONG: Duration = Duration::from_millis(250);

/// A thread that naps, and sees how much later than it wished it comes to run again.
pub struct Meter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Meter {
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !until.load(Ordering::Relaxed) {
                let lay_down = Instant::now();
                std::thread::sleep(NAP);
                longest = longest.max(lay_down.elapsed().saturating_sub(NAP));
            }
            longest
        });
        Self { stop, thread }
    }

    /// The longest that it waited for a processor.
    pub fn finish(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}
