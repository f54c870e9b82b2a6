//! The log of the process itself, in the reference's form: `[INFO] plugin/reload: …`. Lines go through a [`LineSink`],
//! since whoever should read them may not.

use crate::admin::LogLevels;
use crate::chain::{Level as LineLevel, LineSink};
use crate::plan::PlanConfig;
use parking_lot::Mutex;
use std::backtrace::Backtrace;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;

/// Panics are logged with a backtrace (`errors { stacktrace }`).
static STACKTRACE: AtomicBool = AtomicBool::new(false);

/// Standard output, once lines go there.
static LINES: OnceLock<Arc<LineSink>> = OnceLock::new();

/// How long the end of the process waits for what it has said to be read.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// How much is written; may change while the process runs.
#[derive(Clone)]
pub(super) struct Verbosity {
    filter: Option<Handle<LevelFilter, tracing_subscriber::Registry>>,
    levels: Arc<Mutex<LogLevels>>,
}

impl Verbosity {
    fn new(filter: Option<Handle<LevelFilter, tracing_subscriber::Registry>>) -> Self {
        Self { filter, levels: Arc::new(Mutex::new(LogLevels { configured: LineLevel::Info, set: None })) }
    }

    /// What is written, and why.
    pub(super) fn levels(&self) -> LogLevels {
        *self.levels.lock()
    }

    /// Writes lines of this level and above, whatever is configured; `None`: as it is configured. A change is logged,
    /// as `said` by whom: at level info, or at level warning where lines of level info are written neither before nor
    /// after.
    pub(super) fn set(&self, level: Option<LineLevel>, said: &str) {
        let LogLevels { configured, set } = self.levels();
        if set == level {
            return;
        }
        let before = set.unwrap_or(configured);
        let after = self.change(|levels| levels.set = level);
        let say = || {
            let name = after.name();
            let why = if level.is_none() { ", the default" } else { "" };
            match before.min(after) {
                LineLevel::Debug | LineLevel::Info => tracing::info!("{said}: the log level is {name}{why}"),
                LineLevel::Warning | LineLevel::Error => tracing::warn!("{said}: the log level is {name}{why}"),
            }
        };
        // While the more of both is written.
        self.apply(before.min(after));
        say();
        self.apply(after);
    }

    /// The level after the change, which is not heeded yet.
    fn change(&self, change: impl FnOnce(&mut LogLevels)) -> LineLevel {
        let mut levels = self.levels.lock();
        change(&mut levels);
        levels.level()
    }

    fn apply(&self, level: LineLevel) {
        let level = match level {
            LineLevel::Debug => LevelFilter::DEBUG,
            LineLevel::Info => LevelFilter::INFO,
            LineLevel::Warning => LevelFilter::WARN,
            LineLevel::Error => LevelFilter::ERROR,
        };
        // Fails only when the subscriber is gone, at the end of the process.
        _ = self.filter.as_ref().map(|handle| handle.modify(|filter| *filter = level));
    }

    /// As much as a configuration asks for: lines of debug level (`debug`), a backtrace after a panic's line (`errors {
    /// stacktrace }`).
    pub(super) fn follow(&self, config: &PlanConfig) {
        STACKTRACE.store(config.wants_stacktrace(), Ordering::Relaxed);
        let configured = if config.is_debug() { LineLevel::Debug } else { LineLevel::Info };
        let level = self.change(|levels| levels.configured = configured);
        self.apply(level);
    }
}

/// Begins to write lines of level info and above, and panics, to standard output. Called again in one process (tests)
/// it changes nothing.
///
/// # Errors
/// No thread can be started to write them.
pub(super) fn start() -> io::Result<Verbosity> {
    let sink = LineSink::stdout()?;
    LINES.get_or_init(|| sink.clone());
    std::panic::set_hook(Box::new(|panic| {
        let wanted = STACKTRACE.load(Ordering::Relaxed);
        let backtrace = if wanted { format!("\n{}", Backtrace::force_capture()) } else { String::new() };
        tracing::error!("{panic}; this is a fault of nodelocaldns, please report it{backtrace}");
    }));
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let writer = move || Writes(sink.clone());
    Ok(match tracing_subscriber::registry().with(filter).with(lines(writer)).try_init() {
        Ok(()) => Verbosity::new(Some(handle)),
        Err(_) => Verbosity::new(None),
    })
}

/// Writes whole lines to standard error, and waits for that a little: whoever should read them may not.
pub(super) fn complain(lines: &str) {
    match LineSink::stderr() {
        Ok(sink) => {
            sink.text(LineLevel::Error, format!("{lines}\n").as_bytes());
            sink.flush(FLUSH_LIMIT);
        }
        // No thread is to be had, which is most likely what the complaint is about.
        Err(_) => _ = writeln!(io::stderr(), "{lines}"),
    }
}

/// Waits a little for all lines to be written when it is dropped, also by a panic: the process ends.
pub(super) struct FlushOnDrop;

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        if let Some(sink) = LINES.get() {
            sink.flush(FLUSH_LIMIT);
        }
    }
}

/// Takes an event's line, which is written in one piece.
struct Writes(Arc<LineSink>);

impl Write for Writes {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.text(LineLevel::Info, octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes each event of ours as a line. What other crates say is left out: a client can have h2 warn with each
/// connection. Fields are never coloured: the lines go to a container's log, not to a terminal.
fn lines<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    let is_ours = filter_fn(|metadata| metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME")));
    let layer = tracing_subscriber::fmt::layer().event_format(LineFormat).with_ansi(false).with_writer(writer);
    layer.with_filter(is_ours)
}

struct LineFormat;

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::WARN => "WARNING",
            Level::TRACE | Level::DEBUG => "DEBUG",
            Level::INFO => "INFO",
            Level::ERROR => "ERROR",
        };
        write!(writer, "[{level}] ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct LogPage(Arc<Mutex<Vec<u8>>>);

    impl Write for LogPage {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_level_message_and_fields_without_colours_and_none_is_of_another_crate() {
        let page = LogPage::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::registry().with(lines(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "h2::proto", "recv_reset");
            tracing::warn!(upstream = "192.0.2.1:53", "no answer");
        });
        assert_eq!(String::from_utf8_lossy(&page.0.lock().unwrap()), "[WARNING] no answer upstream=\"192.0.2.1:53\"\n");
    }
}
