//! Lines about the process itself, in the reference's shape: `[INFO] plugin/reload: …`.

use std::backtrace::Backtrace;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;

/// Panics are logged with a backtrace (`errors { stacktrace }`).
static STACKTRACE: AtomicBool = AtomicBool::new(false);

/// How much is written; may change while the process runs.
#[derive(Clone)]
pub struct Verbosity(Option<Handle<LevelFilter, tracing_subscriber::Registry>>);

impl Verbosity {
    /// With `debug`, lines of debug level are written too.
    pub fn set_debug(&self, debug: bool) {
        if let Some(handle) = &self.0 {
            let level = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
            // Fails only when the subscriber is gone, at the end of the process.
            let _ = handle.modify(|filter| *filter = level);
        }
    }
    /// Whether a panic's line is followed by a backtrace.
    pub fn set_stacktrace(&self, stacktrace: bool) {
        STACKTRACE.store(stacktrace, Ordering::Relaxed);
    }
}

/// Begins to write lines of level info and above, and panics, to standard output. Called again in one process (tests) it changes nothing.
pub fn start() -> Verbosity {
    std::panic::set_hook(Box::new(|panic| {
        let wanted = STACKTRACE.load(Ordering::Relaxed);
        let backtrace = if wanted { format!("\n{}", Backtrace::force_capture()) } else { String::new() };
        tracing::error!("{panic}; this is a fault of nodelocaldns, please report it{backtrace}");
    }));
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    match tracing_subscriber::registry().with(filter).with(lines(std::io::stdout)).try_init() {
        Ok(()) => Verbosity(Some(handle)),
        Err(_) => Verbosity(None),
    }
}

/// Writes each event as a line. Fields are never coloured: the lines go to a container's log, not to a terminal.
fn lines<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    tracing_subscriber::fmt::layer().event_format(Lines).with_ansi(false).with_writer(writer)
}

struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
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
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_level_message_and_fields_without_colours() {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::registry().with(lines(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || tracing::warn!(upstream = "192.0.2.1:53", "no answer"));
        assert_eq!(String::from_utf8_lossy(&page.0.lock().unwrap()), "[WARNING] no answer upstream=\"192.0.2.1:53\"\n");
    }
}
