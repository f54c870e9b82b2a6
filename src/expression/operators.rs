//! Operators between two values: what they go with, and what they give.

use super::error::EvaluationError;
use super::types::{Element, Type};
use super::value::{Budget, Value};
use std::borrow::Cow;
use std::cmp::Ordering;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    In,
    Contains,
    StartsWith,
    EndsWith,
    Range,
}

impl Operator {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Power => "**",
            Self::In => "in",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Range => "..",
        }
    }

    pub(super) fn is_order(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual)
    }

    /// The type of what it gives for these; `None` if it does not go with them.
    pub(super) fn result(self, left: Type, right: Type) -> Option<Type> {
        let is_any = left == Type::Any || right == Type::Any;
        let both_may_be = |wanted: &[Type]| {
            let may = |side: Type| wanted.iter().any(|wanted| side.may_be(*wanted));
            is_any && may(left) && may(right)
        };
        const NUMBERS: [Type; 2] = [Type::Int, Type::Float];
        let are_numbers = left.is_number() && right.is_number();
        let number = if left == Type::Int && right == Type::Int { Type::Int } else { Type::Float };
        match self {
            Self::Equal | Self::NotEqual => is_comparable(left, right).then_some(Type::Bool),
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => (are_numbers
                || (left, right) == (Type::Text, Type::Text)
                || both_may_be(&[Type::Int, Type::Float, Type::Text]))
            .then_some(Type::Bool),
            Self::Add if (left, right) == (Type::Text, Type::Text) => Some(Type::Text),
            Self::Add if are_numbers => Some(number),
            Self::Add => both_may_be(&[Type::Int, Type::Float, Type::Text]).then_some(Type::Any),
            Self::Subtract | Self::Multiply if are_numbers => Some(number),
            Self::Subtract | Self::Multiply => both_may_be(&NUMBERS).then_some(Type::Any),
            Self::Divide | Self::Power => (are_numbers || both_may_be(&NUMBERS)).then_some(Type::Float),
            Self::Remainder => (left.may_be(Type::Int) && right.may_be(Type::Int)).then_some(Type::Int),
            Self::Range => (left.may_be(Type::Int) && right.may_be(Type::Int)).then_some(Type::List(Element::Int)),
            Self::In => match right {
                Type::Any => Some(Type::Bool),
                Type::List(_) => is_comparable(left, right.element()).then_some(Type::Bool),
                _ => None,
            },
            Self::Contains | Self::StartsWith | Self::EndsWith => {
                (left.may_be(Type::Text) && right.may_be(Type::Text)).then_some(Type::Bool)
            }
        }
    }

    /// What it gives.
    pub(super) fn apply<'v>(
        self,
        left: &Value<'v>,
        right: &Value<'v>,
        budget: &mut Budget,
    ) -> Result<Value<'v>, EvaluationError> {
        match self {
            Self::Equal => left.equals(right, budget).map(Value::Bool),
            Self::NotEqual => left.equals(right, budget).map(|are_equal| Value::Bool(!are_equal)),
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => {
                let order = self.order(left, right, budget)?;
                Ok(Value::Bool(match self {
                    Self::Less => order == Some(Ordering::Less),
                    Self::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                    Self::Greater => order == Some(Ordering::Greater),
                    _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
                }))
            }
            Self::Add if matches!((left, right), (Value::Text(_), Value::Text(_))) => {
                let (Value::Text(left), Value::Text(right)) = (left, right) else { return Err(self.wrong(left)) };
                budget.make(left.len() + right.len())?;
                Ok(Value::Text(Cow::Owned([&**left, &**right].concat())))
            }
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Remainder | Self::Power => {
                self.arithmetic(left, right)
            }
            Self::In => {
                let Value::List(list) = right else { return Err(self.wrong(right)) };
                for element in list.iter() {
                    if element.equals(left, budget)? {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
            Self::Contains | Self::StartsWith | Self::EndsWith => {
                let Value::Text(text) = left else { return Err(self.wrong(left)) };
                let Value::Text(part) = right else { return Err(self.wrong(right)) };
                budget.look_at(text.len() + part.len())?;
                Ok(Value::Bool(match self {
                    Self::Contains => text.contains(&**part),
                    Self::StartsWith => text.starts_with(&**part),
                    _ => text.ends_with(&**part),
                }))
            }
            Self::Range => {
                let Value::Int(first) = left else { return Err(self.wrong(left)) };
                let Value::Int(last) = right else { return Err(self.wrong(right)) };
                if first <= last {
                    budget.steps(usize::try_from(last.abs_diff(*first)).unwrap_or(usize::MAX))?;
                }
                Ok(Value::List((*first..=*last).map(Value::Int).collect()))
            }
        }
    }

    /// `None` where a number is none.
    fn order(
        self,
        left: &Value<'_>,
        right: &Value<'_>,
        budget: &mut Budget,
    ) -> Result<Option<Ordering>, EvaluationError> {
        match (left, right) {
            (Value::Text(left), Value::Text(right)) => {
                budget.look_at(left.len().min(right.len()))?;
                Ok(Some(left.cmp(right)))
            }
            (Value::Int(left), Value::Int(right)) => Ok(Some(left.cmp(right))),
            _ => {
                let number = |value: &Value<'_>| value.as_float().ok_or_else(|| self.wrong(value));
                Ok(number(left)?.partial_cmp(&number(right)?))
            }
        }
    }

    /// Whole numbers wrap around, as Go's do; what is divided becomes a floating point number.
    fn arithmetic<'v>(self, left: &Value<'v>, right: &Value<'v>) -> Result<Value<'v>, EvaluationError> {
        if let (Value::Int(left), Value::Int(right)) = (left, right) {
            match self {
                Self::Add => return Ok(Value::Int(left.wrapping_add(*right))),
                Self::Subtract => return Ok(Value::Int(left.wrapping_sub(*right))),
                Self::Multiply => return Ok(Value::Int(left.wrapping_mul(*right))),
                Self::Remainder if *right == 0 => return Err(EvaluationError::DivisionByZero),
                Self::Remainder => return Ok(Value::Int(left.wrapping_rem(*right))),
                _ => {}
            }
        }
        let number = |value: &Value<'_>| value.as_float().ok_or_else(|| self.wrong(value));
        let (first, second) = (number(left)?, number(right)?);
        match self {
            Self::Add => Ok(Value::Float(first + second)),
            Self::Subtract => Ok(Value::Float(first - second)),
            Self::Multiply => Ok(Value::Float(first * second)),
            Self::Divide => Ok(Value::Float(first / second)),
            Self::Power => Ok(Value::Float(first.powf(second))),
            _ => Err(self.wrong(if matches!(left, Value::Float(_)) { left } else { right })),
        }
    }

    fn wrong(self, value: &Value<'_>) -> EvaluationError {
        EvaluationError::Type { operation: self.symbol(), found: value.kind() }
    }
}

fn is_comparable(left: Type, right: Type) -> bool {
    let is_open = |side| matches!(side, Type::Any | Type::Nil);
    let are_lists = matches!((left, right), (Type::List(_), Type::List(_)));
    is_open(left) || is_open(right) || are_lists || left.is_number() && right.is_number() || left == right
}
