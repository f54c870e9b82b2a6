//! The `metadata` directive lets directives of the block say what they know of a query under labels, for each other;
//! see README.md beside this file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, value};

/// Reads one `metadata` of a server block. Without zones of its own it has the block's.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_options(directive, context.diagnostics);
    let zones = directive.arguments.iter().flat_map(|zone| value::zones_or_none(zone, context.diagnostics));
    block.metadata = Some(match directive.arguments.is_empty() {
        true => context.zones.to_vec(),
        false => zones.collect(),
    });
}

/// What it does with a query, in a line.
pub(super) fn explain(block: &BlockConfig) -> Option<String> {
    let zones: Vec<String> = block.metadata.as_ref()?.iter().map(ToString::to_string).collect();
    Some(format!("directives say what they know of names below {}", zones.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;

    #[test]
    fn zones_are_those_that_are_written_or_the_blocks() {
        for (text, expected) in [("metadata", ".".to_owned()), ("metadata example.org a", "example.org. a.".to_owned())]
        {
            let (block, said) = configure(parse, text);
            let zones: Vec<String> = block.metadata.unwrap_or_default().iter().map(ToString::to_string).collect();
            assert_eq!((zones.join(" "), said.as_str()), (expected, ""), "{text}");
            assert!(block.parts.is_empty());
        }
    }

    #[test]
    fn bad_zones_are_passed_over_and_options_are_refused() {
        assert!(configure(parse, "metadata a..example").1.starts_with("Corefile:2:10: warning: "));
        assert!(configure(parse, "metadata {\n x y\n}").1.contains("metadata"));
    }
}
