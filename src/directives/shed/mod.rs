//! The `shed` directive is accepted for Corefiles that have it, and has nothing to do; see README.md beside this file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, value};

/// Reads one `shed` of a server block, which nothing follows from.
pub(super) fn parse(directive: &Directive, _block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_arguments(directive, context.diagnostics);
    value::no_options(directive, context.diagnostics);
    context
        .diagnostics
        .warning(
            directive.keyword.span,
            "`shed` is not needed: what waits for a socket is bounded, and the client that holds most of it gives way",
        )
        .help("take it away; `fairness` says who counts as one client");
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;

    #[test]
    fn it_is_accepted_and_why_nothing_follows_is_told() {
        let said = configure(parse, "shed").1;
        assert!(said.contains("warning: `shed` is not needed") && !said.contains("error"), "{said}");
        assert!(configure(parse, "shed 5").1.contains("error: `shed` takes no argument"));
    }
}
