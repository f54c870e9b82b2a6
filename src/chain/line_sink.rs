//! Lines for standard output and standard error that never make who says them wait: those of `log` and `errors`, and
//! what either process says of itself. Lines gather in one bounded buffer, which a thread of its own writes out; when
//! whoever reads the output falls behind, lines are dropped, counted, and told of once there is room again.
//!
//! Not `tracing-appender`: it bounds lines rather than octets, and at exit its guard prints to the very stdout that may
//! be blocked.

use super::log_format::{self, Level, LogFormat};
use crate::metrics::{Counter, Registry};
use crate::threads;
use parking_lot::{Condvar, Mutex};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, LazyLock, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// Octets of lines that may wait to be written.
const CAPACITY: usize = 1 << 20;

/// Octets that are written at once, where a line is not longer: a pipe, which both processes write to, takes so many in
/// one piece (PIPE_BUF, pipe(7)), and no line of the one gets into a line of the other.
const PIECE: usize = 4096;

/// Until an output is tried again that somebody has made non-blocking.
const PAUSE: Duration = Duration::from_millis(20);

/// Takes lines without waiting and writes them from a thread of its own.
pub(crate) struct LineSink(Arc<SinkState>);

struct SinkState {
    format: LogFormat,
    state: Mutex<State>,
    capacity: usize,
    /// There are lines to write, or the sink is gone.
    filled: Condvar,
    /// Everything has been written.
    drained: Condvar,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    is_writing: bool,
    is_closed: bool,
    /// Lines that were dropped and not told of.
    untold: u64,
    /// Lines that were dropped before there was a counter.
    uncounted: u64,
    dropped: Option<Counter>,
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

type Process = LazyLock<io::Result<Arc<LineSink>>>;

/// That of the process's lines.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

impl LineSink {
    /// Writes to `output`, holding back at most `capacity` octets of lines. Fails if no thread can be started.
    pub(crate) fn to(output: impl Write + Send + 'static, capacity: usize, format: LogFormat) -> io::Result<Self> {
        let (state, filled, drained) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(SinkState { format, state, capacity, filled, drained });
        let sink = Self(shared.clone());
        let output = Output { output, is_within_line: false };
        threads::spawn("lines", None, move || shared.drain(output))?;
        Ok(sink)
    }

    /// In which form the process's lines are written; what was said first counts. To be called before they are asked
    /// for.
    pub(crate) fn set_format(format: LogFormat) {
        _ = FORMAT.set(format);
    }

    /// The process's standard output. Fails if it is closed, or no thread can be started.
    pub(crate) fn stdout() -> io::Result<Arc<Self>> {
        static STDOUT: Process = LazyLock::new(|| {
            use std::os::fd::AsFd;
            LineSink::to_copy_of(io::stdout().as_fd())
        });
        Self::shared(&STDOUT)
    }

    /// The process's standard error, as [`LineSink::stdout`].
    pub(crate) fn stderr() -> io::Result<Arc<Self>> {
        static STDERR: Process = LazyLock::new(|| {
            use std::os::fd::AsFd;
            LineSink::to_copy_of(io::stderr().as_fd())
        });
        Self::shared(&STDERR)
    }

    fn shared(process: &Process) -> io::Result<Arc<Self>> {
        process.as_ref().map(Arc::clone).map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    /// A descriptor of its own, so that a blocked write holds no lock that `println!` wants.
    fn to_copy_of(output: BorrowedFd<'_>) -> io::Result<Arc<Self>> {
        let format = FORMAT.get().copied().unwrap_or_default();
        Ok(Arc::new(Self::to(File::from(output.try_clone_to_owned()?), CAPACITY, format)?))
    }

    /// Counts dropped lines in `registry`, those before as well. The first registry keeps them.
    pub(crate) fn count_drops(&self, registry: &Registry) {
        let mut state = self.0.state.lock();
        if state.dropped.is_none() {
            let dropped = registry.counter(
                "nodelocaldns_log_lines_dropped_total",
                "Log lines that were not written because the reader of standard output fell behind or it failed.",
                &[],
            );
            dropped.add(std::mem::take(&mut state.uncounted));
            state.dropped = Some(dropped);
        }
    }

    /// Appends one line: `level`'s prefix, what `compose` appends, a line feed. Dropped if it does not fit.
    pub(crate) fn line(&self, level: Level, compose: impl FnOnce(&mut String)) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            line.push_str(level.prefix());
            compose(line);
            line.push('\n');
            self.text(level, line.as_bytes());
        });
    }

    /// Appends whole lines, all or none of them. `level` is that of a first line that has none.
    pub(crate) fn text(&self, level: Level, lines: &[u8]) {
        match self.0.format {
            LogFormat::Text => self.0.push(lines),
            LogFormat::Json => self.0.push(&log_format::to_json(level, lines, &log_format::now())),
        }
    }

    /// Waits until all lines so far are written, at most for `timeout`; tells whether they are. To be called before the
    /// process ends.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
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

impl State {
    fn drop_lines(&mut self, lines: u64) {
        self.untold += lines;
        match &self.dropped {
            Some(dropped) => dropped.add(lines),
            None => self.uncounted += lines,
        }
    }
}

impl SinkState {
    fn push(&self, lines: &[u8]) {
        let mut state = self.state.lock();
        if state.pending.len() + lines.len() > self.capacity {
            return state.drop_lines(count(lines));
        }
        let was_empty = state.pending.is_empty();
        state.pending.extend_from_slice(lines);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn drain(&self, mut output: Output<impl Write>) {
        let mut lines = Vec::new();
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
            std::mem::swap(&mut state.pending, &mut lines);
            // They were dropped after those that wait had been taken.
            let untold = std::mem::take(&mut state.untold);
            state.is_writing = true;
            drop(state);
            let mut failed = 0;
            for piece in pieces(&lines) {
                if output.write(piece).is_err() {
                    failed += count(piece);
                }
            }
            let is_told = untold == 0 || failed == 0 && output.write(&notice(untold, self.format)).is_ok();
            lines.clear();
            state = self.state.lock();
            state.is_writing = false;
            state.untold += if is_told { 0 } else { untold };
            state.drop_lines(failed);
        }
    }
}

/// What is said in the place of lines that were dropped.
fn notice(lines: u64, format: LogFormat) -> Vec<u8> {
    let level = Level::Warning;
    let line = format!(
        "{}{lines} lines were dropped since nobody read the output, or it could not be written\n",
        level.prefix()
    );
    match format {
        LogFormat::Text => line.into_bytes(),
        LogFormat::Json => log_format::to_json(level, line.as_bytes(), &log_format::now()),
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|octet| **octet == b'\n').count() as u64
}

/// Whole lines, of [`PIECE`] octets or less where no single one is longer.
fn pieces(mut lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let feed = |octets: &[u8]| octets.iter().rposition(|octet| *octet == b'\n');
        let first = || lines.iter().position(|octet| *octet == b'\n');
        let end = match lines.len() {
            0 => return None,
            short if short <= PIECE => short,
            all => lines.get(..PIECE).and_then(feed).or_else(first).map_or(all, |at| at + 1),
        };
        let (piece, rest) = lines.split_at(end);
        lines = rest;
        Some(piece)
    })
}

/// Where lines go.
struct Output<W> {
    output: W,
    /// A write has failed in the middle of a line.
    is_within_line: bool,
}

impl<W: Write> Output<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.is_within_line {
            self.write_all(b"\n")?;
        }
        self.write_all(piece)
    }

    fn write_all(&mut self, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() {
            match self.output.write(octets) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    let (done, rest) = octets.split_at(written.min(octets.len()));
                    self.is_within_line = !done.ends_with(b"\n");
                    octets = rest;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        }
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::{Level, LineSink, LogFormat, Output, PIECE, count, pieces};
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
        gated_in(LogFormat::Text, capacity)
    }

    fn gated_in(format: LogFormat, capacity: usize) -> (LineSink, Sender<io::Result<()>>, Receiver<String>) {
        let (permit, permissions) = channel();
        let (written, lines) = channel();
        (LineSink::to(Gate { permissions, written }, capacity, format).unwrap(), permit, lines)
    }

    fn dropped(registry: &Registry) -> u64 {
        registry
            .counter(
                "nodelocaldns_log_lines_dropped_total",
                "Log lines that were not written because the reader of standard output fell behind or it failed.",
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
        let (notices, kept): (Vec<&str>, Vec<&str>) =
            written.lines().partition(|line| line.contains("dropped since nobody read"));
        let reported: u64 = notices.iter().filter_map(|notice| notice.split(' ').nth(1)?.parse::<u64>().ok()).sum();
        assert_eq!(reported, lost, "{written}");
        assert_eq!(kept.len() as u64 + lost, 6, "{written}");
        assert!(written.starts_with("[INFO] first\n"), "{written}");
    }

    #[test]
    fn in_json_every_line_is_an_object_that_of_dropped_lines_too() {
        let (sink, permit, lines) = gated_in(LogFormat::Json, 400);
        sink.line(Level::Info, |line| line.push_str("first"));
        sink.text(Level::Error, b"no level\n");
        sink.line(Level::Debug, |line| line.extend(std::iter::repeat_n('x', 400)));
        drop(permit);
        assert!(sink.flush(LONG));
        let written: String = lines.try_iter().collect();
        let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect(line);
        let pair = |record: serde_json::Value| format!("{} {}", record["level"], record["message"]);
        let said: Vec<_> = written.lines().map(read).map(pair).collect();
        assert_eq!(said[..2], [r#""info" "first""#, r#""error" "no level""#]);
        assert!(said[2].starts_with(r#""warning" "1 lines were dropped"#) && said.len() == 3, "{said:?}");
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
        drop(permit);
        sink.line(Level::Info, |line| line.push_str("kept"));
        assert!(sink.flush(LONG));
        let written: String = lines.try_iter().collect();
        assert!(written.starts_with("[INFO] kept\n[WARNING] 1 lines were dropped"), "{written}");
        sink.line(Level::Info, |line| line.push_str("told"));
        assert!(sink.flush(LONG));
        assert_eq!(lines.try_iter().collect::<String>(), "[INFO] told\n", "it is told once");
    }

    #[test]
    fn what_was_dropped_before_there_was_a_counter_is_counted() {
        let (registry, (sink, permit, _lines)) = (Registry::new(1), gated(10));
        sink.line(Level::Info, |line| line.push_str("longer than there is room for"));
        sink.count_drops(&registry);
        assert_eq!(dropped(&registry), 1);
        drop(permit);
    }

    #[test]
    fn a_line_that_was_cut_by_a_full_disk_does_not_run_into_the_next_one() {
        /// Takes ten octets, then nothing, then everything.
        struct Disk(Vec<u8>, u32);
        impl Write for &mut Disk {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 {
                    2 => Err(io::ErrorKind::StorageFull.into()),
                    turn => {
                        let taken = if turn == 1 { 10 } else { octets.len() };
                        self.0.extend(&octets[..taken]);
                        Ok(taken)
                    }
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut disk = Disk(Vec::new(), 0);
        let mut output = Output { output: &mut disk, is_within_line: false };
        assert!(output.write(b"[INFO] a line that is cut\n").is_err());
        output.write(b"[INFO] whole\n").unwrap();
        assert_eq!(String::from_utf8_lossy(&disk.0), "[INFO] a l\n[INFO] whole\n");
    }

    #[test]
    fn pieces_end_where_lines_end_and_are_no_longer_than_a_pipe_takes_at_once() {
        let short = b"0123456789\n".repeat(1000);
        let long = [vec![b'x'; 3 * PIECE], b"\n".to_vec(), short.clone()].concat();
        for lines in [short, long] {
            let all: Vec<&[u8]> = pieces(&lines).collect();
            assert_eq!(all.concat(), lines);
            assert!(all.iter().all(|piece| piece.ends_with(b"\n") && (piece.len() <= PIECE || count(piece) == 1)));
            assert!(all.len() < 5);
        }
        assert_eq!(pieces(b"").count(), 0);
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
