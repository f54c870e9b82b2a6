//! Reads one `hosts` of a server block.

use super::table::{EntryRules, Table};
use super::{HostsConfig, KEYWORD, lines};
use crate::chain::{BlockConfig, ParseContext, Part};
use crate::corefile::{DataFile, Diagnostics, Directive, OptionLine, Span, Token, value};
use crate::message::LowerName;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "/etc/hosts";
/// Seconds.
const DEFAULT_TTL: u32 = 3600;
const DEFAULT_RELOAD: Duration = Duration::from_secs(5);
/// A file that is looked at more often costs more than it is worth.
const SHORTEST_RELOAD: Duration = Duration::from_millis(100);

/// Reads one `hosts` of a server block.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let (file, zones) = match directive.arguments.split_first() {
        Some((file, zones)) => (Some(file), zones),
        None => (None, &[][..]),
    };
    let mut origins: Vec<LowerName> = Vec::new();
    for zone in zones {
        origins.extend(value::zones(zone, context.diagnostics).into_iter().flatten().map(|zone| zone.to_lower()));
    }
    if zones.is_empty() {
        origins.extend(context.zones.iter().map(|zone| zone.to_lower()));
    }
    let mut options = HostsOptions::new(origins.into());
    for line in &directive.options {
        options.read(line, context.diagnostics);
    }
    if let (Some(span), None) = (options.other_types, &options.falls_through) {
        context
            .diagnostics
            .error(span, "`fallthrough_unsupported` of `hosts` needs `fallthrough`")
            .help("write a line `fallthrough` too, with or without zones");
    }

    let path = file.map_or(Path::new(DEFAULT_FILE), |file| Path::new(&file.text));
    let path = block.root.as_ref().map_or_else(|| path.to_owned(), |root| root.join(path));
    // Who names it wants the Corefile's entries alone.
    let has_file = path != Path::new("/dev/null");
    let read = has_file.then(|| read_file(&path, file, context)).flatten();
    let HostsOptions { origins, has_reverse, inline, ttl, reload, falls_through, other_types } = options;
    let rules = EntryRules { origins, has_reverse, inline: inline.into() };
    let (table, bad) = Table::new(read.as_ref().map_or("", |read| &read.text), &rules);
    if let Some(bad) = bad.summary() {
        let message = format!("{} has lines that are no entries: {bad}", path.display());
        context
            .diagnostics
            .warning(file.unwrap_or(&directive.keyword).span, message)
            .help("the others are served; an entry is an IP address and names for it");
    }
    let configured = HostsConfig {
        path,
        stamp: read.map(|read| read.stamp),
        table: Arc::new(table),
        rules,
        ttl,
        reload: if has_file { reload } else { Duration::ZERO },
        falls_through: falls_through.unwrap_or_default().into(),
        other_types_fall_through: other_types.is_some(),
    };
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(configured) });
}

/// What the file holds; a file that cannot be read is looked for again, and what the Corefile says is served.
fn read_file(path: &Path, named: Option<&Token>, context: &mut ParseContext<'_>) -> Option<DataFile> {
    let error = match context.loaders.files.data(path) {
        Ok(read) => return Some(read),
        Err(error) => error,
    };
    // Nobody has asked for the default one.
    if let Some(named) = named {
        let path = path.display();
        let message = match error.kind() {
            ErrorKind::NotFound => format!("the hosts file {path} does not exist"),
            ErrorKind::IsADirectory => format!("the hosts file {path} is a folder"),
            _ => format!("the hosts file {path} cannot be read: {error}"),
        };
        context
            .diagnostics
            .warning(named.span, message)
            .help("it is served as soon as it can be read, unless `reload 0s` stands in the block; until then the entries of the Corefile are");
    }
    None
}

struct HostsOptions {
    origins: Arc<[LowerName]>,
    has_reverse: bool,
    inline: Vec<(IpAddr, LowerName)>,
    ttl: u32,
    reload: Duration,
    falls_through: Option<Vec<LowerName>>,
    other_types: Option<Span>,
}

impl HostsOptions {
    fn new(origins: Arc<[LowerName]>) -> Self {
        Self {
            origins,
            has_reverse: true,
            inline: Vec::new(),
            ttl: DEFAULT_TTL,
            reload: DEFAULT_RELOAD,
            falls_through: None,
            other_types: None,
        }
    }

    fn read(&mut self, line: &OptionLine, diagnostics: &mut Diagnostics) {
        match line.name.text.as_str() {
            "fallthrough" => {
                let zones =
                    line.arguments.iter().flat_map(|zone| value::zones(zone, diagnostics).into_iter().flatten());
                let zones: Vec<LowerName> = zones.map(|zone| zone.to_lower()).collect();
                let everywhere = || vec![crate::message::Name::root().to_lower()];
                self.falls_through = Some(if line.arguments.is_empty() { everywhere() } else { zones });
            }
            "fallthrough_unsupported" => match line.arguments.first() {
                None => self.other_types = Some(line.name.span),
                Some(argument) => {
                    diagnostics
                        .error(argument.span, "`fallthrough_unsupported` takes no argument")
                        .help("take it away: the zones are those of `fallthrough`");
                }
            },
            "no_reverse" => {
                ignored(&line.arguments, "no_reverse", diagnostics);
                self.has_reverse = false;
            }
            "ttl" => {
                let Some((seconds, more)) = line.arguments.split_first() else {
                    diagnostics
                        .error(line.name.span, "`ttl` of `hosts` has no value")
                        .help("write `ttl SECONDS`, such as `ttl 60`");
                    return;
                };
                ignored(more, "ttl SECONDS", diagnostics);
                let seconds = value::number(seconds, "the ttl of hosts in seconds", 1..=65535, diagnostics);
                self.ttl = seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(self.ttl);
            }
            "reload" => {
                let usage = "reload DURATION";
                let Some([interval]) = value::exactly(&line.name, &line.arguments, usage, diagnostics) else { return };
                let range = Duration::ZERO..=Duration::MAX;
                let Some(read) = value::duration(interval, "the reload of hosts", range, diagnostics) else { return };
                self.reload = if read.is_zero() { read } else { read.max(SHORTEST_RELOAD) };
                if self.reload != read {
                    diagnostics
                        .warning(
                            interval.span,
                            format!("the hosts file is looked at each {SHORTEST_RELOAD:?}, and no more often"),
                        )
                        .help("write a longer time, or `0s` never to read it again");
                }
            }
            // After that the reference takes no more entries.
            _ if self.falls_through.is_some() => {
                let known = ["fallthrough", "fallthrough_unsupported", "no_reverse", "ttl", "reload"];
                if lines::address(&line.name.text).is_ok() {
                    diagnostics
                        .error(line.name.span, "an entry of `hosts` stands after `fallthrough`")
                        .help("write entries before the line `fallthrough`");
                } else {
                    value::unknown_option(line, KEYWORD, &known, diagnostics);
                }
            }
            _ => self.read_entry(line, diagnostics),
        }
    }

    fn read_entry(&mut self, line: &OptionLine, diagnostics: &mut Diagnostics) {
        const USAGE: &str =
            "an entry is an IP address and names for it, such as `192.0.2.1 a.example`; this line is ignored";
        let address = match lines::address(&line.name.text) {
            Ok(address) => address,
            Err(error) => {
                diagnostics.warning(line.name.span, format!("{error}, nor an option of `hosts`")).help(USAGE);
                return;
            }
        };
        if line.arguments.is_empty() {
            diagnostics.warning(line.name.span, format!("`{}` has no name beside it", line.name.text)).help(USAGE);
        }
        for word in &line.arguments {
            match lines::name(&word.text) {
                Ok(name) if self.origins.iter().any(|origin| name.is_within(origin.as_wire())) => {
                    self.inline.push((address, name));
                }
                Ok(_) => {
                    diagnostics
                        .warning(
                            word.span,
                            format!("`{}` is in none of the zones of this `hosts`, and ignored", word.text),
                        )
                        .help("name its zone behind the file, or write the name in full");
                }
                Err(error) => {
                    diagnostics.warning(word.span, error.to_string()).help("it is ignored; write a domain name")
                }
            }
        }
    }
}

/// What the reference takes and does not heed.
fn ignored(arguments: &[Token], usage: &str, diagnostics: &mut Diagnostics) {
    if let Some(argument) = arguments.first() {
        diagnostics
            .warning(argument.span, format!("`{}` is ignored", argument.text))
            .help(format!("write `{usage}` alone"));
    }
}
