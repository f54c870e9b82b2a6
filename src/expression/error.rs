//! What is wrong with an expression, and where; and why one could not be evaluated.

use super::types::Type;
use super::{EXPRESSION_OCTETS, OCTETS_MADE, STEPS};
use crate::go_regex::RegexError;
use std::fmt;

/// An expression that cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpressionError {
    /// Octets of the expression before what is wrong.
    pub at: usize,
    pub problem: Problem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    #[error("the expression has {0} octets, more than the {EXPRESSION_OCTETS} allowed; make it shorter")]
    TooLong(usize),
    #[error("parentheses, operators or predicates stand too deep in each other; take some away")]
    TooDeep,
    #[error("{0:?} means nothing here")]
    Character(char),
    #[error("{0} is not closed; write {0} after it")]
    Unclosed(&'static str),
    #[error("a comment is not closed; write */ after it")]
    Comment,
    #[error("a backslash in a text begins no escape sequence; write \\\\ for the backslash itself")]
    Escape,
    #[error("`{0}` is no number that there is")]
    Number(String),
    #[error("{found} stands where {wanted} should")]
    Unexpected { found: String, wanted: &'static str },
    #[error("`{0}` is neither a function nor declared by `let`; texts stand in quotes")]
    UnknownName(String),
    #[error("`{name}` is no function{}", hint(.nearest))]
    UnknownFunction { name: String, nearest: Option<String> },
    #[error("`{0}` is a function; write `{0}(…)`")]
    NotCalled(String),
    #[error("{0} of the language expr cannot be used here")]
    NotHere(String),
    #[error("`{0}` is declared already; take another name")]
    Redeclared(String),
    #[error("`{operator}` does not go with {left} and {right}")]
    Operands { operator: &'static str, left: Type, right: Type },
    #[error("{what} is {found} and must be {wanted}")]
    WrongType { what: &'static str, found: Type, wanted: &'static str },
    #[error("`{function}` is called as {usage}")]
    Arguments { function: String, usage: String },
    #[error("`{function}`: {why}")]
    Argument { function: &'static str, why: String },
    #[error("what stands after `matches` must be a text in quotes, since patterns are compiled once")]
    PatternNotConstant,
    #[error("the pattern is wrong: {0}")]
    Pattern(RegexError),
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at octet {}: {}", self.at + 1, self.problem)
    }
}

impl std::error::Error for ExpressionError {}

/// Shorthand for the modules here.
pub(super) fn wrong<T>(at: usize, problem: Problem) -> Result<T, ExpressionError> {
    Err(ExpressionError { at, problem })
}

/// Why an expression has no value for this query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// More than [`STEPS`].
    #[error("it takes more than {STEPS} steps; repeat less")]
    Steps,
    /// More than [`OCTETS_MADE`].
    #[error("it makes more than {OCTETS_MADE} octets of text; make less")]
    Octets,
    /// An operand is of a type that the operation does not take.
    #[error("`{operation}` does not go with {found}")]
    Type {
        /// As it is written.
        operation: &'static str,
        /// What the operand is.
        found: &'static str,
    },
    /// An integer divided by zero, or the rest of that.
    #[error("a division by zero")]
    DivisionByZero,
    /// A list or text is shorter.
    #[error("there is no element {index} of {length}")]
    Index {
        /// The place asked for, from 0.
        index: i64,
        /// How many there are.
        length: usize,
    },
    /// A function does not take this value; why.
    #[error("{0}")]
    Value(String),
}
