//! The `multisocket` directive is accepted for Corefiles that have it, and has nothing to do; see README.md beside this
//! file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, value};

/// Reads one `multisocket` of a server block, which nothing follows from.
pub(super) fn parse(directive: &Directive, _block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    const USAGE: &str = "write `multisocket [NUMBER]`, or take it away";
    value::no_options(directive, context.diagnostics);
    match directive.arguments.as_slice() {
        [] => {}
        [number] => _ = value::number(number, "the number of sockets", 1..=1024, context.diagnostics),
        [_, extra, ..] => {
            context.diagnostics.error(extra.span, "`multisocket` takes one number").help(USAGE);
        }
    }
    context
        .diagnostics
        .warning(
            directive.keyword.span,
            "`multisocket` is not needed: every worker has a socket of its own on each address",
        )
        .help("take it away; `--workers` sets how many workers there are");
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;

    #[test]
    fn it_is_accepted_and_why_nothing_follows_is_told() {
        for text in ["multisocket", "multisocket 4"] {
            let said = configure(parse, text).1;
            assert!(said.contains("warning: `multisocket` is not needed") && !said.contains("error"), "{said}");
        }
        for (text, expected) in [
            ("multisocket 0", "error: `0` is out of range"),
            ("multisocket 1025", "error: `1025` is out of range"),
            ("multisocket 1 2", "error: `multisocket` takes one number"),
        ] {
            assert!(configure(parse, text).1.contains(expected), "{text}");
        }
    }
}
