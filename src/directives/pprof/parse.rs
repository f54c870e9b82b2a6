//! `pprof [ADDRESS] { block [RATE] }`

use super::{KEYWORD, Pprof};
use crate::chain::{BlockConfig, ParseContext, Part};
use crate::corefile::{Directive, OptionLine, Token, listen_address, value};

/// The reference's default.
const DEFAULT_ADDRESS: &str = "localhost:6053";

/// Reads one `pprof` of a server block.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    let default = Token { text: DEFAULT_ADDRESS.to_owned(), span: directive.keyword.span };
    let token = match directive.arguments.as_slice() {
        [] => Some(&default),
        [address] => Some(address),
        [_, extra, ..] => {
            diagnostics
                .error(extra.span, format!("pprof takes one address, so `{}` is too many", extra.text))
                .help("write `pprof [ADDRESS]`, such as `pprof 127.0.0.1:6053`");
            None
        }
    };
    let address = token.and_then(|token| {
        listen_address(token, context.loaders.files, diagnostics)?.address().map(|address| (address, token.span))
    });
    for line in &directive.options {
        parse_option(line, context);
    }
    let Some((address, span)) = address else { return };
    if !address.ip().to_canonical().is_loopback() {
        context
            .diagnostics
            .warning(
                span,
                format!("pprof on {address}: whoever reaches it sees what this process does, and has it profiled"),
            )
            .help("write an address of this machine alone, such as `pprof localhost:6053`");
    }
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(Pprof { address }) });
}

fn parse_option(line: &OptionLine, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    if line.name.text != "block" {
        value::unknown_option(line, KEYWORD, &["block"], diagnostics);
        return;
    }
    let is_good = match line.arguments.as_slice() {
        [] => true,
        // The reference takes any that strconv.Atoi takes.
        [rate] if rate.text.parse::<i64>().is_ok() => true,
        [rate] => {
            diagnostics
                .error(rate.span, format!("the rate of block must be a whole number, not `{}`", rate.text))
                .help("write `block [RATE]`, such as `block 1`");
            false
        }
        [_, extra, ..] => {
            diagnostics
                .error(extra.span, format!("block takes one rate, so `{}` is too many", extra.text))
                .help("write `block [RATE]`, such as `block 1`");
            false
        }
    };
    if is_good {
        diagnostics
            .warning(
                line.name.span,
                "block has no effect: it is about waiting goroutines of the Go runtime, which is not here",
            )
            .help("take the line out");
    }
}
