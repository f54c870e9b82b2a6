//! The `errors` directive writes a line to standard output for every query that no directive could answer, with the
//! reason; see README.md beside this file.

mod consolidate;
mod parse;
#[cfg(test)]
mod tests;

pub(super) use parse::parse;

use crate::chain::{
    BuildContext, BuildError, Built, Configured, Exchange, Level, LineSink, Observer, PacketHits, Request,
};
use consolidate::{Consolidation, Pattern};
use futures_util::future::BoxFuture;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// `errors`, with its `consolidate` lines.
struct Errors {
    patterns: Vec<Pattern>,
}

impl Configured for Errors {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let sink = LineSink::stdout().map_err(|error| {
            BuildError(format!("errors cannot write to standard output: {error}; keep it open, or leave errors out"))
        })?;
        sink.count_drops(&context.process.registry);
        Ok(ErrorLog::start(&self.patterns, sink))
    }
}

/// Writes a line for every failure, or one for many alike.
struct ErrorLog {
    consolidations: Box<[Consolidation]>,
    /// A consolidation has begun to count.
    began: Notify,
    sink: Arc<LineSink>,
}

impl ErrorLog {
    fn start(patterns: &[Pattern], sink: Arc<LineSink>) -> Built {
        let consolidations = patterns.iter().cloned().map(Consolidation::new).collect();
        let report = Arc::new(Self { consolidations, began: Notify::new(), sink });
        let background = match patterns {
            [] => vec![],
            _ => vec![StopOnDrop(report.clone()).tell_summaries()],
        };
        Built { observer: Some(report), background, ..Built::default() }
    }

    fn say(&self, level: Level, message: fmt::Arguments<'_>) {
        // Debug lines are for blocks that run with `debug`, as all our own logging.
        if level == Level::Debug && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        self.sink.line(level, |line| {
            // Writing to a String does not fail.
            fmt::write(line, format_args!("plugin/errors: {message}")).ok();
        });
    }

    /// Tells the summaries that are due; returns when the next one is.
    fn tell_due(&self, now: Instant) -> Option<Instant> {
        for consolidation in &self.consolidations {
            if let Some(summary) = consolidation.take_due(now) {
                self.say(consolidation.pattern.level, format_args!("{summary}"));
            }
        }
        self.consolidations.iter().filter_map(Consolidation::due).min()
    }
}

impl Observer for ErrorLog {
    fn explain(&self, _request: &Request<'_>) -> String {
        match self.consolidations.len() {
            0 => "writes a line if it fails".to_owned(),
            _ => "writes a line if it fails, or one for many alike".to_owned(),
        }
    }

    fn observe(&self, exchange: &Exchange<'_>) {
        let Some(failure) = exchange.failure else { return };
        let mut level = Level::Error;
        if let Some(consolidation) = self.consolidations.iter().find(|it| it.pattern.regex.is_match(&failure.cause)) {
            let verdict = consolidation.record(exchange.request.received + exchange.elapsed);
            if verdict.begins {
                self.began.notify_one();
            }
            if !verdict.is_told {
                return;
            }
            level = consolidation.pattern.level;
        }
        let query = exchange.request.query;
        self.say(
            level,
            format_args!("{} {} {}: {}", exchange.rcode.0, query.name.to_name(), query.qtype, failure.cause),
        );
    }

    /// No failure is ever given again.
    fn packet_hits(&self, _exchange: &Exchange<'_>) -> PacketHits {
        PacketHits::Ignore
    }
}

/// Tells what is pending when the plan is replaced or the process stops.
struct StopOnDrop(Arc<ErrorLog>);

impl StopOnDrop {
    fn tell_summaries(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let report = &self.0;
            loop {
                match report.tell_due(Instant::now()) {
                    None => report.began.notified().await,
                    Some(due) => tokio::select! {
                        () = report.began.notified() => {}
                        () = tokio::time::sleep_until(due.into()) => {}
                    },
                }
            }
        })
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        for consolidation in &self.0.consolidations {
            if let Some(summary) = consolidation.stop() {
                self.0.say(consolidation.pattern.level, format_args!("{summary}"));
            }
        }
    }
}
