//! The `metadata` directive; see README.md beside this file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, value};

/// Reads one `metadata` of a server block. Its zones are checked and not kept: no directive here provides or reads
/// metadata.
pub(super) fn parse(directive: &Directive, _block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_options(directive, context.diagnostics);
    for zone in &directive.arguments {
        value::zones_or_none(zone, context.diagnostics);
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;

    #[test]
    fn zones_are_optional_and_leave_the_block_as_it_was() {
        for text in ["metadata", "metadata example.org 10.0.0.0/8"] {
            let (block, said) = configure(parse, text);
            assert_eq!((block.parts.len(), said.as_str()), (0, ""), "{text}");
        }
    }

    #[test]
    fn bad_zones_are_passed_over_and_options_are_refused() {
        assert!(configure(parse, "metadata a..example").1.starts_with("Corefile:2:10: warning: "));
        assert!(configure(parse, "metadata {\n x y\n}").1.contains("metadata"));
    }
}
