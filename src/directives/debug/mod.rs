//! The `debug` directive logs at debug level; see README.md beside this file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, value};

/// Reads one `debug` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_arguments(directive, context.diagnostics);
    value::no_options(directive, context.diagnostics);
    block.debug = true;
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;

    #[test]
    fn debug_is_switched_on_by_its_name_alone() {
        let (block, said) = configure(parse, "debug");
        assert_eq!((block.debug, said.as_str()), (true, ""));
    }

    #[test]
    fn arguments_and_options_are_refused() {
        assert!(configure(parse, "debug on").1.contains("Corefile:2:"));
        assert!(configure(parse, "debug {\n level 3\n}").1.contains("debug"));
    }
}
