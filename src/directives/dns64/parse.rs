//! Reads one `dns64` of a server block.

use super::prefix::Prefix;
use super::{Dns64Config, KEYWORD};
use crate::chain::{BlockConfig, ParseContext, Part};
use crate::corefile::{Diagnostics, Directive, Token, value};
use std::any::Any;

const USAGE: &str = "write `dns64 [PREFIX]`, such as `dns64 64:ff9b::/96`; its block has `prefix PREFIX`, `translate_all` and `allow_ipv4`";

/// Reads one `dns64` of a server block. Another one in the block goes on where the first ended, as in the reference.
pub(crate) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let earlier = block.parts.iter_mut().find(|part| part.keyword == KEYWORD).and_then(|part| {
        let configured: &mut dyn Any = &mut *part.configured;
        configured.downcast_mut::<Dns64Config>()
    });
    match earlier {
        Some(config) => {
            context
                .diagnostics
                .warning(directive.keyword.span, "`dns64` stands twice in one server block")
                .help("what both say counts, and where they differ this one; keep one of them");
            read(directive, config, context.diagnostics);
        }
        None => {
            let mut config = Dns64Config::default();
            read(directive, &mut config, context.diagnostics);
            block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(config) });
        }
    }
}

fn read(directive: &Directive, config: &mut Dns64Config, diagnostics: &mut Diagnostics) {
    match directive.arguments.as_slice() {
        [] => {}
        [prefix] => read_prefix(prefix, config, diagnostics),
        [_, extra, ..] => diagnostics.error(extra.span, "`dns64` takes one prefix").help(USAGE),
    }
    for line in &directive.options {
        let extra = match (line.name.text.as_str(), line.arguments.as_slice()) {
            ("prefix", [prefix, extra @ ..]) => {
                read_prefix(prefix, config, diagnostics);
                extra
            }
            ("prefix", []) => {
                diagnostics.error(line.name.span, "`prefix` of `dns64` has no value").help(USAGE);
                &[]
            }
            ("translate_all", extra) => {
                config.translate_all = true;
                extra
            }
            ("allow_ipv4", extra) => {
                config.allow_ipv4 = true;
                extra
            }
            _ => {
                value::unknown_option(line, KEYWORD, &["prefix", "translate_all", "allow_ipv4"], diagnostics);
                &[]
            }
        };
        if let Some(extra) = extra.first() {
            diagnostics.warning(extra.span, format!("`{}` is ignored", extra.text)).help(USAGE);
        }
    }
}

fn read_prefix(word: &Token, config: &mut Dns64Config, diagnostics: &mut Diagnostics) {
    match Prefix::parse(&word.text) {
        Ok(prefix) => config.prefix = prefix,
        Err(error) => {
            diagnostics.error(word.span, format!("`{}` is no prefix of dns64: {error}", word.text)).help(USAGE)
        }
    }
}
