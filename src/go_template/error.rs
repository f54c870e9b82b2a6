//! What is wrong with a template, and where.

use super::{OUTPUT_OCTETS, STEPS, TEMPLATE_OCTETS};
use std::fmt;

/// A template that cannot be read, or a run that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Octets of the template before what is wrong.
    pub at: usize,
    pub problem: Problem,
}

/// What is wrong. Texts are parts of the template, or in the words of Go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the template has {0} octets, more than the {TEMPLATE_OCTETS} allowed; make it shorter")]
    TooLong(usize),
    #[error("parentheses or blocks stand too deep in each other; take some away")]
    TooDeep,
    #[error("`{0}` is not closed; write `{1}` after it")]
    Unclosed(&'static str, &'static str),
    #[error("{found} stands where {wanted} should")]
    Unexpected { found: String, wanted: &'static str },
    #[error("`{name}` is no function; there are {}", known.join(", "))]
    UnknownFunction { name: String, known: &'static [&'static str] },
    #[error("the variable `{0}` is not declared here; write `{{{{ {0} := … }}}}` before it")]
    UnknownVariable(String),
    #[error("`{0}` is no number that there is")]
    Number(String),
    #[error("{0} is no text in quotes: an escape sequence is wrong, or the closing quote is missing")]
    Text(String),
    #[error("the template `{0}` is defined twice; give one another name")]
    DefinedTwice(String),
    #[error("no template is called `{0}`; write `{{{{ define \"{0}\" }}}} … {{{{ end }}}}`")]
    NoTemplate(String),
    #[error("there is no field or method `{field}` in {kind}")]
    Field { field: String, kind: &'static str },
    #[error("{function}: {why}")]
    Call { function: String, why: String },
    #[error("{0}")]
    Value(String),
    #[error("it takes more than {STEPS} steps; repeat less")]
    Steps,
    #[error("it makes more than {OUTPUT_OCTETS} octets; make less")]
    Output,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at octet {}: {}", self.at + 1, self.problem)
    }
}

impl std::error::Error for TemplateError {}

/// Shorthand for the modules here.
pub(super) fn wrong<T>(at: usize, problem: Problem) -> Result<T, TemplateError> {
    Err(TemplateError { at, problem })
}
