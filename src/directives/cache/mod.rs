//! The `cache` directive; see README.md beside this file.

mod entry;
mod shard;
mod store;

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::Directive;

/// Reads one `cache` of a server block.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let _ = (directive, block, context);
    todo!()
}
