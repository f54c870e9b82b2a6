//! The `log` directive; see README.md beside this file.

mod class;
mod format;
mod parse;
#[cfg(test)]
mod tests;

pub(super) use parse::parse;

use crate::chain::{BuildContext, BuildError, Built, Configured, Exchange, Level, LineSink, Observer, unix_seconds};
use crate::message::LowerName;
use class::{ClassSet, ResponseType};
use format::Format;
use std::sync::Arc;

/// All `log` lines of a server block.
#[derive(Default)]
struct Log {
    rules: Vec<LogRule>,
}

/// What is logged of the queries for a name and everything below it.
#[derive(Clone)]
struct LogRule {
    scope: LowerName,
    classes: ClassSet,
    format: Arc<Format>,
}

impl Configured for Log {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let sink = LineSink::stdout().map_err(|error| {
            BuildError(format!("log cannot write to standard output: {error}; keep it open, or leave log out"))
        })?;
        sink.count_drops(&context.process.registry);
        let logger = Logger { rules: self.rules.clone().into(), sink };
        Ok(Built { observer: Some(Arc::new(logger)), ..Built::default() })
    }
}

struct Logger {
    rules: Box<[LogRule]>,
    sink: Arc<LineSink>,
}

impl Observer for Logger {
    fn observe(&self, exchange: &Exchange<'_>) {
        // Only the first rule in whose scope the name lies counts, as in the reference.
        let Some(rule) = self.rules.iter().find(|rule| exchange.request.query.name.is_within(rule.scope.as_wire()))
        else {
            return;
        };
        let needs_type = rule.classes != ClassSet::ALL || rule.format.shows_response_type();
        let response_type = match needs_type {
            true => ResponseType::of(exchange, unix_seconds()),
            false => ResponseType::NoError,
        };
        if rule.classes.contains(response_type.class()) {
            self.sink.line(Level::Info, |line| rule.format.append(exchange, response_type, line));
        }
    }
}
