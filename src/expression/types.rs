//! The types that an expression's parts have when it is read.

use std::fmt;

/// What is known of a value before it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Nothing: it is looked at when it is there.
    Any,
    /// `nil`.
    Nil,
    /// `true` or `false`.
    Bool,
    /// A whole number of 64 bits.
    Int,
    /// A floating-point number of 64 bits.
    Float,
    /// A string.
    Text,
    /// An array.
    List(Element),
}

/// What is known of the elements of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    Any,
    Bool,
    Int,
    Float,
    Text,
}

impl Type {
    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Float)
    }
    /// Whether a value of this type may be one of `wanted`.
    pub(super) fn may_be(self, wanted: Self) -> bool {
        match (self, wanted) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::List(_), Self::List(Element::Any)) => true,
            _ => self == wanted,
        }
    }
    /// The type of a list's elements.
    pub(super) fn element(self) -> Self {
        match self {
            Self::List(Element::Bool) => Self::Bool,
            Self::List(Element::Int) => Self::Int,
            Self::List(Element::Float) => Self::Float,
            Self::List(Element::Text) => Self::Text,
            _ => Self::Any,
        }
    }
    /// That of a list of these.
    pub(super) fn list(self) -> Self {
        Self::List(match self {
            Self::Bool => Element::Bool,
            Self::Int => Element::Int,
            Self::Float => Element::Float,
            Self::Text => Element::Text,
            Self::Any | Self::Nil | Self::List(_) => Element::Any,
        })
    }
    /// That of what is either of this type or of the other.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::List(_), Self::List(_)) if self != other => Self::List(Element::Any),
            _ if self == other => self,
            _ => Self::Any,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::Nil => "nil",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::Text => "string",
            Self::List(Element::Any) => "array",
            Self::List(Element::Bool) => "array of bool",
            Self::List(Element::Int) => "array of int",
            Self::List(Element::Float) => "array of float",
            Self::List(Element::Text) => "array of string",
        })
    }
}
