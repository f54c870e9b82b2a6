//! The `log` directive writes a line to standard output for every query, or for some; see README.md beside this file.

mod class;
mod parse;
#[cfg(test)]
mod tests;

pub(super) use parse::parse;

use crate::chain::{
    BlockMetadata, BuildContext, BuildError, Built, Configured, Differing, Exchange, Format, HitObserver, Level,
    LineSink, Observer, PacketFormat, PacketHits, Received, Request, unix_seconds,
};
use crate::message::LowerName;
use class::{ClassSet, ResponseType};
use std::sync::Arc;
use std::time::Duration;

/// Metadata that `log` itself has.
const TYPE: &str = "/log/type";
const CLASS: &str = "/log/class";

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
        let logger = Logger { rules: self.rules.clone().into(), metadata: context.metadata.clone(), sink };
        Ok(Built { observer: Some(Arc::new(logger)), ..Built::default() })
    }
}

struct Logger {
    rules: Box<[LogRule]>,
    metadata: BlockMetadata,
    sink: Arc<LineSink>,
}

impl Logger {
    /// Only the first rule in whose scope the name lies counts, as in the reference.
    fn rule_of(&self, name: &LowerName) -> Option<&LogRule> {
        self.rules.iter().find(|rule| name.is_within(rule.scope.as_wire()))
    }

    /// How an exchange is logged, if it is.
    fn format_of(&self, exchange: &Exchange<'_>) -> Option<(&Format, ResponseType)> {
        let rule = self.rule_of(&exchange.request.query.name)?;
        let needs_type = rule.classes != ClassSet::ALL || rule.format.has_label(&[TYPE, CLASS]);
        let response_type = match needs_type {
            true => ResponseType::of(exchange, unix_seconds()),
            false => ResponseType::NoError,
        };
        rule.classes.contains(response_type.class()).then_some((&rule.format, response_type))
    }

    /// Appends what this directive and the block know of an exchange under a label.
    fn append_label(&self, name: &LowerName, response_type: ResponseType, label: &str, line: &mut String) -> bool {
        let value = match label {
            TYPE => Some(response_type.label()),
            CLASS => Some(response_type.class().label()),
            _ => self.metadata.get(label.trim_start_matches('/'), name),
        };
        value.inspect(|value| line.push_str(value)).is_some()
    }
}

impl Observer for Logger {
    fn explain(&self, request: &Request<'_>) -> String {
        match self.rule_of(&request.query.name) {
            None => "writes no line: no rule is for the name".to_owned(),
            Some(LogRule { scope, classes: ClassSet::ALL, .. }) => format!("writes a line, by its rule for {scope}"),
            Some(LogRule { scope, classes, .. }) => {
                format!("writes a line if the answer is of class {classes}, by its rule for {scope}")
            }
        }
    }

    fn observe(&self, exchange: &Exchange<'_>) {
        if let Some((format, response_type)) = self.format_of(exchange) {
            let name = &exchange.request.query.name;
            let label = |label: &str, line: &mut String| self.append_label(name, response_type, label, line);
            self.sink.line(Level::Info, |line| format.append(&exchange.request, Some(exchange), &label, line));
        }
    }

    fn packet_hits(&self, exchange: &Exchange<'_>) -> PacketHits {
        match self.format_of(exchange) {
            Some((format, response_type)) => {
                let name = &exchange.request.query.name;
                let label = |label: &str, line: &mut String| self.append_label(name, response_type, label, line);
                let format = format.for_packet(exchange, &label);
                PacketHits::Show(Arc::new(PacketLogger { format, sink: self.sink.clone() }))
            }
            None => PacketHits::Ignore,
        }
    }
}

/// Logs the packet cache's hits with one packet.
struct PacketLogger {
    format: PacketFormat,
    sink: Arc<LineSink>,
}

impl HitObserver for PacketLogger {
    fn observe_hit(&self, received: Received<'_>, elapsed: Duration) {
        let id = received.wire.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        let hit = Differing { peer: received.peer, id, elapsed: Some(elapsed) };
        self.sink.line(Level::Info, |line| self.format.append(hit, line));
    }
}
