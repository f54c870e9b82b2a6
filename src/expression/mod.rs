//! Expressions in the language of github.com/expr-lang/expr (as of v1.17.8, which CoreDNS 1.14.7 has), for where a
//! Corefile has them. Pure: a text in, a tree out; a tree and an environment in, a value out.
//!
//! What a text means is known when it is read: names, numbers of arguments and types are checked then, and patterns
//! compiled. Evaluating is bounded in steps and in octets made, so that no expression, however written, holds a
//! worker.
//!
//! Left out of the language: maps, fields and methods, octet texts (`b'…'`), dates and durations, JSON and base64,
//! `if {} else {}`, and patterns that are not written down.

mod error;
mod functions;
mod lexer;
mod node;
mod operators;
mod parser;
mod run;
#[cfg(test)]
mod tests;
mod types;
mod value;

pub use error::EvaluationError;
pub(crate) use error::ExpressionError;
pub use types::Type;
pub use value::Value;

use crate::go_regex::Patterns;
use std::any::Any;
use std::sync::Arc;

/// Octets an expression may have.
pub const EXPRESSION_OCTETS: usize = 16 << 10;
/// Nodes that one evaluation may walk through, elements that it may look at.
pub const STEPS: usize = 20_000;
/// Octets of text that one evaluation may make.
pub const OCTETS_MADE: usize = 64 << 10;
/// Parentheses, operators and predicates within each other.
const DEPTH: usize = 64;

/// A function that expressions may call beside those of the language.
pub struct Function {
    /// As it is called, without parentheses.
    pub name: &'static str,
    /// The types of its arguments, in their order.
    pub parameters: &'static [Type],
    /// The type of what it gives.
    pub returns: Type,
    /// Looks at the arguments that are constants, when the expression is read: what the call is to be given beside its
    /// arguments, or what is wrong with them.
    pub prepare: Option<Prepare>,
}

/// See [`Function::prepare`]. `None` stands for an argument that is no constant.
pub type Prepare = fn(&[Option<&Value<'static>>]) -> Result<Option<Prepared>, String>;

/// What a function has made of its constant arguments.
pub type Prepared = Arc<dyn Any + Send + Sync>;

/// What an expression is evaluated in.
pub trait Environment {
    /// The value of the function with this place among those that the expression was read with. Its arguments are of
    /// the types that it takes, or of any if they are not known before.
    ///
    /// # Errors
    /// There is none for these arguments.
    fn call<'v>(
        &'v self,
        function: usize,
        prepared: Option<&Prepared>,
        arguments: &[Value<'v>],
    ) -> Result<Value<'v>, EvaluationError>;
}

/// An expression that was read.
#[derive(Clone, Debug)]
pub struct Expression {
    node: node::Node,
    kind: Type,
    /// Places of the functions that it calls.
    called: Vec<usize>,
}

impl Expression {
    /// Reads an expression that may call these functions. Its patterns count among those of the configuration.
    ///
    /// # Errors
    /// It is not one, or is longer than [`EXPRESSION_OCTETS`] or too deep in itself: what is wrong, with its place.
    pub fn parse(text: &str, functions: &[Function], patterns: &Patterns) -> Result<Self, ExpressionError> {
        parser::parse(text, functions, patterns)
    }

    /// What is known of its value's type.
    pub fn kind(&self) -> Type {
        self.kind
    }

    /// Whether it calls the function with this place.
    pub fn calls(&self, function: usize) -> bool {
        self.called.contains(&function)
    }

    /// Its value.
    ///
    /// # Errors
    /// It has none here, or a bound was reached.
    pub fn evaluate<'v>(&'v self, environment: &'v dyn Environment) -> Result<Value<'v>, EvaluationError> {
        run::evaluate(&self.node, environment)
    }
}
