//! Reads one `loadbalance` of a server block.

use super::weights::Weights;
use super::{KEYWORD, LoadBalanceConfig, PolicyConfig};
use crate::chain::{BlockConfig, ParseContext, Part};
use crate::corefile::{Directive, OptionLine, Token, value};
use ipnet::IpNet;
use std::any::Any;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const USAGE: &str = "write `loadbalance`, `loadbalance round_robin`, or `loadbalance weighted FILE`";
const DEFAULT_RELOAD: Duration = Duration::from_secs(30);
/// A file that is looked at more often costs more than it is worth.
const SHORTEST_RELOAD: Duration = Duration::from_millis(100);

/// Reads one `loadbalance` of a server block. Of several the last one's policy counts, and the networks of all, as in
/// the reference.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let mut networks = Vec::new();
    let policy = match directive.arguments.split_first() {
        Some((word, [])) if word.text == "round_robin" => Some(PolicyConfig::RoundRobin),
        None => Some(PolicyConfig::RoundRobin),
        Some((word, arguments)) if word.text == "weighted" => weighted(directive, word, arguments, block, context),
        Some((word, [extra, ..])) if word.text == "round_robin" => {
            context.diagnostics.error(extra.span, "`round_robin` takes no argument").help(USAGE);
            None
        }
        Some((word, _)) => {
            context
                .diagnostics
                .error(word.span, format!("unknown policy `{}` of `loadbalance`", word.text))
                .help(USAGE);
            None
        }
    };
    if !matches!(policy, Some(PolicyConfig::Weighted { .. })) {
        directive.options.iter().for_each(|line| prefer(line, &mut networks, context));
    }
    let Some(policy) = policy else { return };
    let earlier = block.parts.iter_mut().find(|part| part.keyword == KEYWORD);
    let earlier = earlier.and_then(|part| {
        let configured: &mut dyn Any = &mut *part.configured;
        configured.downcast_mut::<LoadBalanceConfig>()
    });
    match earlier {
        Some(earlier) => {
            context
                .diagnostics
                .warning(directive.keyword.span, "`loadbalance` stands twice in one server block")
                .help("this one's policy counts, and what both prefer; keep one of them");
            earlier.policy = policy;
            earlier.prefer.append(&mut networks);
        }
        None => {
            let configured = Box::new(LoadBalanceConfig { policy, prefer: networks });
            block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured });
        }
    }
}

fn prefer(line: &OptionLine, networks: &mut Vec<IpNet>, context: &mut ParseContext<'_>) {
    if line.name.text != "prefer" {
        value::unknown_option(line, KEYWORD, &["prefer"], context.diagnostics);
        return;
    }
    for word in &line.arguments {
        match word.text.parse::<IpNet>() {
            Ok(network) => networks.push(network),
            Err(_) => {
                context
                    .diagnostics
                    .error(word.span, format!("`{}` is no network in CIDR form", word.text))
                    .help("write `prefer NETWORK...`, such as `prefer 10.0.0.0/8 2001:db8::/32`");
            }
        }
    }
}

fn weighted(
    directive: &Directive,
    word: &Token,
    arguments: &[Token],
    block: &BlockConfig,
    context: &mut ParseContext<'_>,
) -> Option<PolicyConfig> {
    let [file] = value::exactly(word, arguments, "loadbalance weighted FILE", context.diagnostics)?;
    let mut reload = DEFAULT_RELOAD;
    for line in &directive.options {
        if line.name.text != "reload" {
            value::unknown_option(line, "loadbalance weighted", &["reload"], context.diagnostics);
            continue;
        }
        let interval = value::exactly(&line.name, &line.arguments, "reload DURATION", context.diagnostics);
        let Some([interval]) = interval else { continue };
        let range = Duration::ZERO..=Duration::MAX;
        if let Some(read) = value::duration(interval, "the reload of loadbalance", range, context.diagnostics) {
            reload = if read.is_zero() { read } else { read.max(SHORTEST_RELOAD) };
        }
    }
    let path = Path::new(&file.text);
    let path = block.root.as_ref().map_or_else(|| path.to_owned(), |root| root.join(path));
    let (stamp, weights) = match context.loaders.files.data(&path) {
        Ok(read) => {
            match Weights::read(&read.text) {
                Ok(weights) => (Some(read.stamp), weights),
                Err(error) => {
                    context
                    .diagnostics
                    .error(file.span, format!("the weights of {} cannot be read: {error}", path.display()))
                    .help("a line has a name, and each one after it an address of that name and its weight from 1 to 255");
                    return None;
                }
            }
        }
        Err(error) => {
            let message = match error.kind() {
                ErrorKind::NotFound => format!("the file of weights {} does not exist", path.display()),
                _ => format!("the file of weights {} cannot be read: {error}", path.display()),
            };
            if reload.is_zero() {
                context
                    .diagnostics
                    .error(file.span, message)
                    .help("it is read but once, since `reload` is 0: put it there");
            } else {
                context
                    .diagnostics
                    .warning(file.span, message)
                    .help("until it can be read all addresses weigh the same");
            }
            (None, Weights::default())
        }
    };
    Some(PolicyConfig::Weighted { path, stamp, weights: Arc::new(weights), reload })
}
