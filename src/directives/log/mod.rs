//! The `log` directive; see README.md beside this file.

mod class;
mod parse;
#[cfg(test)]
mod tests;

pub use parse::parse;

use crate::chain::{
    BlockMetadata, BuildContext, BuildError, Built, Configured, Exchange, Format, Level, LineSink, Observer,
    unix_seconds,
};
use crate::message::LowerName;
use class::{ClassSet, ResponseType};
use std::fmt::Write;
use std::sync::Arc;

/// Metadata that `log` itself has.
const TYPE: &str = "/log/type";
const CLASS: &str = "/log/class";

/// All `log` lines of a server block.
#[derive(Default)]
struct Log {
    rules: Vec<Rule>,
}

/// What is logged of the queries for a name and everything below it.
#[derive(Clone)]
struct Rule {
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
        let logger = Logger { rules: self.rules.clone().into(), metadata: context.metadata.clone(), sink };
        Ok(Built { observer: Some(Arc::new(logger)), ..Built::default() })
    }
}

struct Logger {
    rules: Box<[Rule]>,
    metadata: BlockMetadata,
    sink: Arc<LineSink>,
}

impl Observer for Logger {
    fn observe(&self, exchange: &Exchange<'_>) {
        // Only the first rule in whose scope the name lies counts, as in the reference.
        let Some(rule) = self.rules.iter().find(|rule| exchange.request.query.name.is_within(rule.scope.as_wire()))
        else {
            return;
        };
        let needs_type = rule.classes != ClassSet::ALL || rule.format.has_label(&[TYPE, CLASS]);
        let response_type = match needs_type {
            true => ResponseType::of(exchange, unix_seconds()),
            false => ResponseType::NoError,
        };
        if rule.classes.contains(response_type.class()) {
            let name = &exchange.request.query.name;
            let label = |label: &str, line: &mut String| {
                let value = match label {
                    TYPE => Some(response_type.label()),
                    CLASS => Some(response_type.class().label()),
                    _ => self.metadata.get(label.trim_start_matches('/'), name),
                };
                value.is_some_and(|value| write!(line, "{value}").is_ok())
            };
            self.sink.line(Level::Info, |line| rule.format.append(&exchange.request, Some(exchange), &label, line));
        }
    }
}
