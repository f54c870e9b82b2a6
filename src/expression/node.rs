//! An expression as it is evaluated.

use super::Prepared;
use super::functions::Builtin;
use super::operators::Operator;
use super::value::Value;
use crate::go_regex::Regex;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Constant(Value<'static>),
    /// A variable, or an element that a predicate looks at: its place from the bottom of those that are there.
    Local(usize),
    Not(Box<Node>),
    Negate(Box<Node>),
    /// All of them hold; those after the first that does not are not looked at.
    And(Vec<Node>),
    /// One of them holds.
    Or(Vec<Node>),
    Binary(Operator, Box<[Node; 2]>),
    Matches(Box<Node>, Regex),
    /// `a ? b : c`
    Conditional(Box<[Node; 3]>),
    /// `a ?? b`
    Coalesce(Box<[Node; 2]>),
    /// Stands in two comparisons of a chain (`1 < a < 3`).
    Shared(Arc<Node>),
    List(Vec<Node>),
    Index(Box<[Node; 2]>),
    Slice {
        of: Box<Node>,
        from: Option<Box<Node>>,
        to: Option<Box<Node>>,
    },
    /// `let NAME = VALUE; BODY`
    Let(Box<[Node; 2]>),
    Call(Builtin, Vec<Node>),
    /// A predicate asked of each element; none: the element itself is the answer.
    Each(Iteration, Box<Node>, Option<Box<Node>>),
    /// A function of the environment, by its place there.
    Environment {
        function: usize,
        prepared: Option<Prepared>,
        arguments: Vec<Node>,
    },
}

/// What a predicate is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Iteration {
    All,
    None,
    Any,
    One,
    Filter,
    Map,
    Find,
    FindIndex,
    FindLast,
    FindLastIndex,
    Count,
    Sum,
}

impl Iteration {
    /// Each with its name.
    pub(super) const NAMED: [(&'static str, Self); 12] = [
        ("all", Self::All),
        ("none", Self::None),
        ("any", Self::Any),
        ("one", Self::One),
        ("filter", Self::Filter),
        ("map", Self::Map),
        ("find", Self::Find),
        ("findIndex", Self::FindIndex),
        ("findLast", Self::FindLast),
        ("findLastIndex", Self::FindLastIndex),
        ("count", Self::Count),
        ("sum", Self::Sum),
    ];

    /// Elements are looked at from the last one on.
    pub(super) fn is_backwards(self) -> bool {
        matches!(self, Self::FindLast | Self::FindLastIndex)
    }

    /// The predicate gives a value, not whether it holds.
    pub(super) fn takes_value(self) -> bool {
        matches!(self, Self::Map | Self::Sum)
    }
}
