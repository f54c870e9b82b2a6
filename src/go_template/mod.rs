//! Go's text/template (as of Go 1.26), for where a Corefile has it: its whole language, and its functions, over the
//! data that a directive
//! gives. Pure: a text in, a tree out; a tree and data in, a text out. What the language has and is left out: numbers
//! with an imaginary part, and
//! `call`, since no data holds a function.
//!
//! Running is bounded: in steps, in octets made, and in templates within each other. So no template, however written,
//! holds a worker.

mod error;
mod exec;
mod format;
mod functions;
mod lexer;
mod number;
mod parser;
mod print;
#[cfg(test)]
mod tests;
mod tree;
mod value;

pub(crate) use error::TemplateError;
pub use value::{TemplateData, Value};

use std::collections::HashMap;

/// Octets a template may have.
pub const TEMPLATE_OCTETS: usize = 64 << 10;
/// Nodes that one run may walk through.
pub const STEPS: usize = 20_000;
/// Octets that one run may write or make on the way.
pub const OUTPUT_OCTETS: usize = 128 << 10;

/// A template that was read.
#[derive(Clone, Debug)]
pub struct Template {
    root: Vec<tree::TemplateNode>,
    /// Those of `define` and `block`.
    named: HashMap<Box<str>, Vec<tree::TemplateNode>>,
    /// It names the dot, or what may be a field of another value.
    uses_dot: bool,
    fields: Vec<(usize, String)>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// What Go refuses, with its place; and a template longer than [`TEMPLATE_OCTETS`], or too deep in itself.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        parser::parse(text)
    }

    /// True if what it makes depends on no other fields of the data than these.
    pub fn depends_on_none_but(&self, fields: &[&str]) -> bool {
        !self.uses_dot && self.fields.iter().all(|(_, field)| fields.contains(&field.as_str()))
    }

    /// The fields of the data that it names where that is certain (outside `with`, `range` and `define`, or by `$`),
    /// each with the octets before it.
    pub fn root_fields(&self) -> impl Iterator<Item = (usize, &str)> {
        self.fields.iter().map(|(at, name)| (*at, name.as_str()))
    }

    /// Runs it with `data` as the dot: the text made.
    ///
    /// # Errors
    ///
    /// What fails in Go too, such as an index out of range, with its place; and a bound that was reached.
    pub fn execute(&self, data: Value) -> Result<String, TemplateError> {
        exec::execute(&self.root, &self.named, data)
    }
}
