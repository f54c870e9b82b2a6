//! The `loop` directive; see README.md beside this file.

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::Directive;

/// Reads one `loop` of a server block.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let _ = (directive, block, context);
    todo!()
}
