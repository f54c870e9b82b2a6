//! The `template` directive answers queries with records that are made from them, by Go's text/template; see README.md
//! beside this file.

mod counters;
mod data;
mod follow;
mod handler;
mod parse;
mod record;
mod rule;
#[cfg(test)]
mod tests;

pub(super) use parse::parse;

use crate::chain::{BuildContext, BuildError, Built, Configured};
use handler::Templates;
use rule::TemplateRule;
use std::sync::Arc;

const KEYWORD: &str = "template";

/// All `template`s of a server block: the reference asks them one after another, in the order of the file.
struct TemplateHandler {
    rules: Vec<Arc<TemplateRule>>,
}

impl Configured for TemplateHandler {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let handler = Templates::new(self.rules.clone(), context);
        Ok(Built { handler: Some(Arc::new(handler)), ..Built::default() })
    }
}
