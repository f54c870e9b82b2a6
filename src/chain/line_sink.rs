//! Lines for standard output (`log`, `errors`) that never make a worker wait. Lines gather in one bounded buffer, which a thread
//! of its own writes out in large pieces; when whoever reads the output falls behind, lines are dropped and counted.
//!
//! Not `tracing-appender`: it bounds lines rather than octets, and at exit its guard prints to the very stdout that may be blocked.

use crate::metrics::{Counter, Registry};
use crate::threads;
use parking_lot::{Condvar, Mutex};
use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

/// Octets of lines that may wait to be written.
const CAPACITY: usize = 1 << 20;

/// How grave a line is; what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl Level {
    fn prefix(self) -> &'static str {
        match self {
            Self::Debug => "[DEBUG] ",
            Self::Info => "[INFO] ",
            Self::Warning => "[WARNING] ",
            Self::Error => "[ERROR] ",
        }
    }
}

/// Takes lines without waiting and writes them from a thread of its own.
pub struct LineSink(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    capacity: usize,
    /// There are lines to write, or the sink is gone.
    filled: Condvar,
    /// Everything has been written.
    drained: Condvar,
    dropped: OnceLock<Counter>,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    is_writing: bool,
    is_closed: bool,
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl LineSink {
    /// Writes to `output`, holding back at most `capacity` octets of lines. Fails if no thread can be started.
    pub fn to(output: impl Write + Send + 'static, capacity: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            capacity,
            filled: Condvar::new(),
            drained: Condvar::new(),
            dropped: OnceLock::new(),
        });
        let sink = Self(shared.clone());
        threads::spawn("lines", None, move || shared.drain(output))?;
        Ok(sink)
    }

    /// The process's standard output. Fails if it is closed, or no thread can be started.
    pub fn stdout() -> io::Result<Arc<Self>> {
        static STDOUT: LazyLock<io::Result<Arc<LineSink>>> = LazyLock::new(|| {
            use std::os::fd::AsFd;
            // A descriptor of its own, so that a blocked write holds no lock that `println!` wants.
            let output = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
            Ok(Arc::new(LineSink::to(output, CAPACITY)?))
        });
        STDOUT.as_ref().map(Arc::clone).map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    /// Counts dropped lines in `registry` from now on. The first registry keeps them.
    pub fn count_drops(&self, registry: &Registry) {
        self.0.dropped.get_or_init(|| {
            registry.counter(
                "nodelocaldns_log_lines_dropped_total",
                "Lines of log and errors that were not written because the reader of standard output fell behind or it failed.",
                &[],
            )
        });
    }

    /// Appends one line: `level`'s prefix, what `compose` appends, a line feed. Dropped if it does not fit.
    pub fn line(&self, level: Level, compose: impl FnOnce(&mut String)) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            line.push_str(level.prefix());
            compose(line);
            line.push('\n');
            self.0.push(line.as_bytes());
        });
    }

    /// Waits until all lines so far are written, at most for `timeout`; tells whether they are. To be called before the process ends.
    pub fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.0.state.lock();
        while state.is_writing || !state.pending.is_empty() {
            if self.0.drained.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }
}

impl Drop for LineSink {
    /// What is pending is still written, if the output takes it.
    fn drop(&mut self) {
        self.0.state.lock().is_closed = true;
        self.0.filled.notify_one();
    }
}

impl Shared {
    fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.pending.len() + line.len() > self.capacity {
            drop(state);
            return self.count_dropped(1);
        }
        let was_empty = state.pending.is_empty();
        state.pending.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn drain(&self, mut output: impl Write) {
        let mut piece = Vec::new();
        let mut state = self.state.lock();
        loop {
            if state.pending.is_empty() {
                self.drained.notify_all();
                if state.is_closed {
                    return;
                }
                self.filled.wait(&mut state);
                continue;
            }
            std::mem::swap(&mut state.pending, &mut piece);
            state.is_writing = true;
            drop(state);
            if output.write_all(&piece).and_then(|()| output.flush()).is_err() {
                // Nowhere left to say so but the metric.
                self.count_dropped(piece.iter().filter(|octet| **octet == b'\n').count() as u64);
            }
            piece.clear();
            state = self.state.lock();
            state.is_writing = false;
        }
    }

    fn count_dropped(&self, lines: u64) {
        if let Some(dropped) = self.dropped.get() {
            dropped.add(lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Level, LineSink};
    use crate::metrics::Registry;
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(30);

    /// Waits for a permission before each write, and hands on what was written.
    struct Gate {
        permissions: Receiver<io::Result<()>>,
        written: Sender<String>,
    }

    impl Write for Gate {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.permissions.recv().unwrap_or(Ok(()))?;
            self.written.send(String::from_utf8_lossy(octets).into_owned()).ok();
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated(capacity: usize) -> (LineSink, Sender<io::Result<()>>, Receiver<String>) {
        let (permit, permissions) = channel();
        let (written, lines) = channel();
        (LineSink::to(Gate { permissions, written }, capacity).unwrap(), permit, lines)
    }

    fn dropped(registry: &Registry) -> u64 {
        registry
            .counter(
                "nodelocaldns_log_lines_dropped_total",
                "Lines of log and errors that were not written because the reader of standard output fell behind or it failed.",
                &[],
            )
            .value()
    }

    #[test]
    fn lines_carry_their_level_and_come_in_order() {
        let (sink, permit, lines) = gated(1000);
        drop(permit);
        sink.line(Level::Info, |line| line.push_str("one"));
        sink.line(Level::Warning, |line| line.push_str("two"));
        sink.line(Level::Error, |line| line.push_str("three"));
        sink.line(Level::Debug, |line| line.push_str("four"));
        assert!(sink.flush(LONG));
        let written: String = lines.try_iter().collect();
        assert_eq!(written, "[INFO] one\n[WARNING] two\n[ERROR] three\n[DEBUG] four\n");
    }

    #[test]
    fn a_blocked_output_drops_lines_counts_them_and_keeps_nobody_waiting() {
        let registry = Registry::new(1);
        let (sink, permit, lines) = gated(20);
        sink.count_drops(&registry);
        sink.line(Level::Info, |line| line.push_str("first"));
        // Which of the next are dropped depends on whether the first has been picked up yet; two never fit behind it.
        for _ in 0..5 {
            sink.line(Level::Info, |line| line.push_str("next"));
        }
        assert!(!sink.flush(Duration::ZERO));
        let lost = dropped(&registry);
        assert!((4..=5).contains(&lost), "{lost}");
        drop(permit);
        assert!(sink.flush(LONG));
        let written: String = lines.try_iter().collect();
        assert_eq!(written.lines().count() as u64 + lost, 6, "{written}");
        assert!(written.starts_with("[INFO] first\n"), "{written}");
    }

    #[test]
    fn lines_of_a_failed_write_count_as_dropped_and_the_sink_goes_on() {
        let registry = Registry::new(1);
        let (sink, permit, lines) = gated(1000);
        sink.count_drops(&registry);
        permit.send(Err(io::Error::from(io::ErrorKind::BrokenPipe))).unwrap();
        sink.line(Level::Info, |line| line.push_str("lost"));
        assert!(sink.flush(LONG));
        assert_eq!(dropped(&registry), 1);
        permit.send(Ok(())).unwrap();
        sink.line(Level::Info, |line| line.push_str("kept"));
        assert!(sink.flush(LONG));
        assert_eq!(lines.try_iter().collect::<String>(), "[INFO] kept\n");
    }

    #[test]
    fn what_is_pending_is_written_after_the_sink_is_gone() {
        let (sink, permit, lines) = gated(1000);
        sink.line(Level::Info, |line| line.push_str("last"));
        drop(sink);
        drop(permit);
        assert_eq!(lines.recv_timeout(LONG).unwrap(), "[INFO] last\n");
    }
}
