//! What expressions work with, and the bounds of a run.

use super::error::EvaluationError;
use super::{OCTETS_MADE, STEPS, Type};
use std::borrow::Cow;
use std::sync::Arc;

/// A value. Texts are borrowed from the expression or from the query where they can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'v> {
    /// `nil`.
    Nil,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A string.
    Text(Cow<'v, str>),
    /// An array.
    List(Arc<[Value<'v>]>),
}

impl<'v> Value<'v> {
    /// A string.
    pub fn text(text: impl Into<Cow<'v, str>>) -> Self {
        Self::Text(text.into())
    }
    /// The same value, borrowed.
    pub(super) fn borrowed(&'v self) -> Self {
        match self {
            Self::Text(text) => Self::Text(Cow::Borrowed(text)),
            other => other.clone(),
        }
    }
    /// What it is called in the language.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "string",
            Self::List(_) => "array",
        }
    }
    /// Whether this may be the value of an expression of this type, elements of lists included.
    pub fn is_of(&self, kind: Type) -> bool {
        match (kind, self) {
            (Type::Any, _)
            | (Type::Nil, Self::Nil)
            | (Type::Bool, Self::Bool(_))
            | (Type::Int, Self::Int(_))
            | (Type::Float, Self::Float(_))
            | (Type::Text, Self::Text(_)) => true,
            (Type::List(_), Self::List(elements)) => elements.iter().all(|element| element.is_of(kind.element())),
            _ => false,
        }
    }
    /// A number as floating point.
    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }
    /// Whether `==` holds. Numbers are compared as numbers; what is of different kinds is not equal.
    pub(super) fn equals(&self, other: &Self, budget: &mut Budget) -> Result<bool, EvaluationError> {
        budget.step()?;
        Ok(match (self, other) {
            (Self::Text(one), Self::Text(other)) => {
                budget.look_at(one.len().min(other.len()))?;
                one == other
            }
            (Self::List(one), Self::List(other)) => {
                if one.len() != other.len() {
                    return Ok(false);
                }
                for (one, other) in one.iter().zip(other.iter()) {
                    if !one.equals(other, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Int(_), Self::Float(_)) | (Self::Float(_), Self::Int(_)) => self.as_float() == other.as_float(),
            (one, other) => one == other,
        })
    }
}

/// What a run may still do.
#[derive(Debug)]
pub(super) struct Budget {
    steps: usize,
    octets: usize,
}

/// Octets of a compiled pattern that are tried at an octet of text, at the worst, while many octets of text are looked
/// at. A usual pattern takes 1 to 60 thousand.
const PATTERN_OCTETS: usize = 2_000;

/// Octets of text that are looked at in the time of one step.
const OCTETS_A_STEP: usize = 32;

impl Budget {
    pub(super) fn new() -> Self {
        Self { steps: STEPS, octets: OCTETS_MADE }
    }
    /// Takes one step.
    pub(super) fn step(&mut self) -> Result<(), EvaluationError> {
        self.steps(1)
    }
    pub(super) fn steps(&mut self, count: usize) -> Result<(), EvaluationError> {
        self.steps = self.steps.checked_sub(count).ok_or(EvaluationError::Steps)?;
        Ok(())
    }
    /// Looks at so many octets of text.
    pub(super) fn look_at(&mut self, octets: usize) -> Result<(), EvaluationError> {
        self.steps(octets / OCTETS_A_STEP)
    }
    /// Looks for a pattern that takes so many octets compiled in so many octets of text: the time for that is at most
    /// proportional to both, where a pattern is of the worst kind.
    pub(super) fn match_in(&mut self, text: usize, pattern: usize) -> Result<(), EvaluationError> {
        self.look_at(text.saturating_mul((pattern / PATTERN_OCTETS).max(1)))
    }
    /// Makes so many octets of text. To be asked before they are made.
    pub(super) fn make(&mut self, octets: usize) -> Result<(), EvaluationError> {
        self.octets = self.octets.checked_sub(octets).ok_or(EvaluationError::Octets)?;
        self.look_at(octets)
    }
}
